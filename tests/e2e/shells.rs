//! kctl in a user's shell: completions in bash, zsh and fish themselves, and its man pages.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use tests::{Cluster, Output, bin_dir, eventually, machine::run, source};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("shells::bash_completes_commands_flags_and_names", bash_completes_commands_flags_and_names),
    ("shells::fish_completes_commands_flags_and_names", fish_completes_commands_flags_and_names),
    ("shells::zsh_completes_commands_flags_and_names", zsh_completes_commands_flags_and_names),
    ("shells::every_man_page_reads_well", every_man_page_reads_well),
    ("shells::logs_on_a_terminal_follow_restarts_and_new_pods", logs_on_a_terminal_follow_restarts_and_new_pods),
];

/// Logs of pods that end after a line or live on, followed in a terminal until what is wanted was seen.
fn logs_on_a_terminal_follow_restarts_and_new_pods(c: &Cluster) {
    let n = c.namespace("followed");
    c.create(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: again, namespace: {n}}}\nspec:\n  containers:\n  - {{name: a, image: 'nginx:live', command: [sh, -c, 'echo said; sleep 4; exit 1']}}\n"
    ))
    .ok();
    c.kctl(&format!("-n {n} wait --for=condition=Ready pod/again --timeout=60s")).ok();
    following(c, &format!("-n {n} logs -f again"), &[("said", 2, "")]);
    let pod = |name: &str| {
        let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME, namespace: SPACE, labels: {app: f}}\nspec:\n  containers:\n  - {name: a, image: 'nginx:live', command: [sh, -c, 'echo I am NAME; sleep 1d']}\n";
        c.file(&format!("{name}.yaml"), &manifest.replace("NAME", name).replace("SPACE", n)).display().to_string()
    };
    c.kctl(&format!("create -f {}", pod("first"))).ok();
    c.kctl(&format!("-n {n} wait --for=condition=Ready pod/first --timeout=60s")).ok();
    let create = format!("create -f {}", pod("second"));
    following(c, &format!("-n {n} logs -f -l app=f"), &[("I am first", 1, &create), ("I am second", 1, "")]);
}

/// Runs kctl in a terminal, which `script` gives it, until each text was seen so many times; after each another line is run.
fn following(c: &Cluster, line: &str, steps: &[(&str, usize, &str)]) {
    let follow = format!("{} {line}", bin_dir().join("kctl").display());
    let mut child = c.client("script".into(), &["-qefc", &follow, "/dev/null"]);
    let mut child = child.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("script starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let mut seen: Vec<String> = Vec::new();
    for (wanted, times, then) in steps {
        eventually(wanted, || {
            seen.extend(receiver.try_iter());
            if seen.iter().filter(|line| line.contains(wanted)).count() >= *times { Ok(()) } else { Err(seen.join("\n")) }
        });
        if !then.is_empty() {
            c.kctl(then).ok();
        }
    }
    child.kill().expect("script can be ended");
    child.wait().expect("script ends");
}

/// What is typed, and one of the words offered for its end.
const LINES: &[(&str, &str)] = &[
    ("kctl cluster-in", "cluster-info"),
    ("kctl create conf", "configmap"),
    ("kctl get pods --show-lab", "--show-labels"),
    ("kctl get configm", "configmaps"),
    ("kctl get configmap kube-roo", "kube-root-ca.crt"),
    ("kctl config use-context kser", "kserver"),
    ("kctl get pods -n kube-sys", "kube-system"),
    ("kctl get pods --context kser", "kserver"),
    ("kctl get pods -o jso", "json"),
    ("kctl get namespaces -l kubernetes.io/metadata.name=kube-sy", "kubernetes.io/metadata.name=kube-system"),
    ("kctl -n completed logs p -c mai", "main"),
    ("kctl apply -f /etc/host", "/etc/hostname"),
];

/// Where the repository's generated files lie.
fn generated(name: &str) -> PathBuf {
    source("..").join(name)
}

/// Runs a script in a shell that finds kctl on its PATH.
fn shell(c: &Cluster, shell: &str, arguments: &[&str], script: &str) -> Output {
    let path = format!("{}:{}", bin_dir().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = c.client(shell.into(), &[arguments, &["-c", script]].concat());
    command.env("PATH", path).env("LANG", "C.UTF-8").env("COMPLETIONS", generated("completions"));
    run(command)
}

/// The pod that the lines ask about, made by the story that comes first.
fn prepared(c: &Cluster) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        c.namespace("completed");
        let pod = "{\"spec\":{\"containers\":[{\"name\":\"main\",\"image\":\"busybox:1\",\"command\":[\"sleep\",\"1d\"]}]}}";
        c.kctl(&format!("-n completed run p --image=busybox:1 --overrides '{pod}'")).ok();
    });
}

fn bash_completes_commands_flags_and_names(c: &Cluster) {
    prepared(c);
    for (line, wanted) in LINES {
        let last = line.split(' ').count() - 1;
        let script = format!(
            "source $COMPLETIONS/kctl.bash; COMP_WORDS=({line}); COMP_CWORD={last}; COMP_TYPE=9; \
             _clap_complete_kctl kctl \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last}-1]}}\" 2>/dev/null; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        shell(c, "bash", &["--norc"], &script).contains(wanted);
    }
}

fn fish_completes_commands_flags_and_names(c: &Cluster) {
    prepared(c);
    for (line, wanted) in LINES {
        shell(c, "fish", &["--no-config"], &format!("source $COMPLETIONS/kctl.fish; complete -C '{line}'")).contains(wanted);
    }
}

fn zsh_completes_commands_flags_and_names(c: &Cluster) {
    prepared(c);
    for (line, wanted) in LINES {
        // zsh completes only where someone types: a terminal of its own, with a key that shows what the line has become.
        let script = format!(
            r#"zmodload zsh/zpty
            zpty z zsh -f -i
            zpty -w z 'PS1=; fpath=($COMPLETIONS $fpath); autoload -U compinit; compinit -u -D; show() {{ print -r -- "[$BUFFER]" }}; zle -N show; bindkey "^X" show; print rea""dy'
            zpty -r z out '*ready*'
            zpty -w -n z $'{line}\t\x18'
            zpty -r z out '*\[*\]*'
            print -r -- $out"#
        );
        shell(c, "zsh", &["-f"], &script).contains(wanted);
    }
}

fn every_man_page_reads_well(c: &Cluster) {
    let pages: Vec<PathBuf> = std::fs::read_dir(generated("man")).expect("there are man pages").flatten().map(|e| e.path()).collect();
    assert!(pages.len() > 80, "{} pages", pages.len());
    let files: Vec<String> = pages.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    run(c.client("mandoc".into(), &[&["-Tlint", "-Wwarning"], files.as_slice()].concat())).prints("");
    let page = generated("man/kctl-create-secret-generic.1");
    let mut man = c.client("man".into(), &["-l", &page.to_string_lossy()]);
    man.env("MANPAGER", "cat").env("MANWIDTH", "100").env("LANG", "C.UTF-8");
    // The pages are justified, so blanks say nothing.
    let text = run(man).ok().split_whitespace().collect::<Vec<_>>().join(" ");
    for wanted in ["kctl create secret generic", "--from-literal", "SYNOPSIS", "OPTIONS"] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
}

//! kctl as a person sees it in a terminal: colours, watches, remote full-screen programs, resizing, Ctrl-C, narrow windows, progress.

use tests::terminal::Terminal;
use tests::{Cluster, eventually};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("terminal::tables_and_errors_are_coloured_unless_no_color", tables_and_errors_are_coloured_unless_no_color),
    ("terminal::a_watch_shows_changes_until_ctrl_c", a_watch_shows_changes_until_ctrl_c),
    ("terminal::a_full_screen_program_runs_in_a_container", a_full_screen_program_runs_in_a_container),
    ("terminal::a_remote_shell_follows_the_window_and_gets_ctrl_c", a_remote_shell_follows_the_window_and_gets_ctrl_c),
    ("terminal::a_narrow_window_wraps_help_and_keeps_progress_on_one_line", a_narrow_window_wraps_help_and_keeps_progress_on_one_line),
    ("terminal::a_rollout_shows_its_progress_and_ends_with_reasons", a_rollout_shows_its_progress_and_ends_with_reasons),
    ("terminal::apply_and_cp_show_progress_and_leave_only_results", apply_and_cp_show_progress_and_leave_only_results),
];

/// A running pod that waits, in a namespace of its own.
fn sleeper<'a>(c: &Cluster, namespace: &'a str) -> &'a str {
    let n = c.namespace(namespace);
    c.kctl(&format!("-n {n} run p --image=busybox:1 -- sleep 1d")).ok();
    c.kctl(&format!("-n {n} wait --for=condition=Ready pod/p --timeout=60s")).ok();
    n
}

fn tables_and_errors_are_coloured_unless_no_color(c: &Cluster) {
    let n = sleeper(c, "colours");
    let t = Terminal::open(c, 100, 24);
    t.enter(&format!("kctl -n {n} get pods"));
    t.shows("Running");
    let shown = t.coloured();
    assert!(shown.contains("\u{1b}[32mRunning"), "Running is not green:\n{shown:?}");
    assert!(shown.contains("\u{1b}[1mNAME"), "the header is not bold:\n{shown:?}");
    t.enter(&format!("kctl -n {n} get nonsense"));
    t.shows("doesn't have a resource type");
    let shown = t.coloured();
    assert!(shown.contains("\u{1b}[31merror:") || shown.contains("\u{1b}[1m\u{1b}[31merror:"), "the error is not red:\n{shown:?}");
    // What is piped is plain, also from within a terminal.
    t.clear();
    t.enter(&format!("kctl -n {n} get pods | cat; NO_COLOR=1 kctl -n {n} get pods; echo fini''shed"));
    t.shows("finished");
    let shown = t.coloured();
    assert!(shown.matches("Running").count() == 2 && !shown.contains('\u{1b}'), "there are colours:\n{shown:?}");
}

fn a_watch_shows_changes_until_ctrl_c(c: &Cluster) {
    let n = c.namespace("watching");
    let t = Terminal::open(c, 100, 24);
    t.enter(&format!("kctl -n {n} get configmaps -w --no-headers"));
    t.shows("kube-root-ca.crt");
    c.kctl(&format!("-n {n} create configmap added --from-literal=a=b")).ok();
    t.shows("added");
    c.kctl(&format!("-n {n} patch configmap added -p '{{\"data\":{{\"c\":\"d\"}}}}'")).ok();
    t.shows_what("the change shows as a second line", |screen| screen.lines().filter(|l| l.starts_with("added")).count() == 2);
    t.press("C-c");
    t.enter("echo code $?");
    t.shows("code 130");
}

fn a_full_screen_program_runs_in_a_container(c: &Cluster) {
    let n = sleeper(c, "fullscreen");
    let t = Terminal::open(c, 80, 20);
    t.enter(&format!("kctl -n {n} exec -it p -- vi /tmp/note"));
    // vi fills the window with tildes and keeps the last row for itself.
    t.shows_what("vi has the whole window", |screen| {
        screen.lines().filter(|l| *l == "~").count() == 18 && screen.lines().nth(19).is_some_and(|l| l.contains("/tmp/note"))
    });
    t.write("iwritten in a container");
    t.press("Escape");
    // Behind Escape vi waits a moment whether it begins a key's sequence: its last row tells when it is back.
    t.shows_what("vi is out of insert mode", |screen| screen.lines().nth(19).is_some_and(|l| l.starts_with("- /tmp/note [Modified]")));
    t.enter(":wq");
    t.prompts();
    t.enter("echo code $?");
    t.shows("code 0");
    c.kctl(&format!("-n {n} exec p -- cat /tmp/note")).prints("written in a container\n");
    // The terminal is a plain one again: what is typed is shown, and lines are edited.
    t.enter("stty -a | tr ';' '\\n' | tr ' ' '\\n' | grep -x -e icanon -e echo | wc -l");
    t.shows_what("the terminal is as before", |screen| screen.lines().any(|l| l.trim() == "2"));
}

fn a_remote_shell_follows_the_window_and_gets_ctrl_c(c: &Cluster) {
    let n = sleeper(c, "remote-shell");
    let t = Terminal::open(c, 80, 24);
    t.enter(&format!("kctl -n {n} exec -it p -- sh"));
    t.shows("/ #");
    t.enter("stty size");
    t.shows("24 80");
    t.resize(100, 30);
    eventually("the container knows the new size", || {
        t.enter("stty size");
        let screen = t.screen();
        if screen.contains("30 100") { Ok(()) } else { Err(screen) }
    });
    // What is pressed while the shell still edits its line is input, not a signal.
    t.enter("echo sta''rted; sleep 1000; echo sle''pt $?");
    t.shows("started");
    t.press("C-c");
    // The interrupt ended the remote command, and neither kctl nor the remote shell.
    t.enter("echo in $(hostname)");
    let screen = t.shows("in p");
    assert!(!screen.contains("slept 0"), "{screen}");
    t.enter("exit 3");
    t.prompts();
    t.enter("echo code $?");
    t.shows("code 3");
}

fn a_narrow_window_wraps_help_and_keeps_progress_on_one_line(c: &Cluster) {
    let n = c.namespace("narrow");
    c.kctl(&format!("-n {n} create deployment stuck --image=absent.invalid/none:1")).ok();
    let t = Terminal::open(c, 40, 24);
    t.enter("kctl scale --help; echo fini''shed");
    t.shows("finished");
    // Sentences are broken before the edge; flags are words and stay whole.
    let history = t.history();
    let wide: Vec<&str> = history.lines().filter(|l| plain_width(l) > 40 && !l.contains("--")).collect();
    assert!(wide.is_empty(), "wider than the window: {wide:?}");
    assert!(history.contains("Set a new size for a deployment, replica\r\n"), "{history}");
    t.clear();
    t.enter(&format!("kctl -n {n} rollout status deployment/stuck"));
    t.shows("0/1");
    let screen = t.screen();
    assert_eq!(screen.lines().filter(|l| l.contains("0/1")).count(), 1, "{screen}");
    let after: Vec<&str> = screen.lines().skip_while(|l| !l.contains("0/1")).skip(1).filter(|l| !l.is_empty()).collect();
    assert!(after.is_empty(), "progress takes more than a line:\n{screen}");
    t.press("C-c");
}

fn a_rollout_shows_its_progress_and_ends_with_reasons(c: &Cluster) {
    let n = c.namespace("progress");
    c.kctl(&format!("-n {n} create deployment stuck --image=absent.invalid/none:1 --replicas=2")).ok();
    let t = Terminal::open(c, 100, 24);
    t.enter(&format!("kctl -n {n} rollout status deployment/stuck --timeout=20s"));
    t.shows("0/2");
    t.shows_what("the bar names what is wrong", |screen| screen.contains("] 0/2 stuck-") && screen.contains("container none waits"));
    let screen = t.shows("error: timed out waiting for the condition");
    assert!(screen.contains("container none waits: ") && !screen.contains("] 0/2"), "{screen}");
    t.clear();
    c.kctl(&format!("-n {n} create deployment fine --image=nginx:live --replicas=2")).ok();
    t.enter(&format!("kctl -n {n} rollout status deployment/fine"));
    let screen = t.shows("deployment \"fine\" successfully rolled out");
    // On a terminal only the end stays.
    assert!(!screen.contains("Waiting for") && !screen.contains("/2"), "{screen}");
    // A pipe gets every line, and no bar.
    c.kctl(&format!("-n {n} set image deployment/fine nginx=absent.invalid/none:2")).ok();
    let piped = c.kctl(&format!("-n {n} rollout status deployment/fine --timeout=2s"));
    // Before them may come that the deployment's controller has not seen the change yet.
    let waits = piped.stdout.lines().last().is_some_and(|line| line.starts_with("Waiting for deployment \"fine\" rollout to finish: "));
    assert!(waits && !piped.stdout.contains("] "), "{piped}");
    assert_eq!(piped.stderr, "error: timed out waiting for the condition\n");
}

fn apply_and_cp_show_progress_and_leave_only_results(c: &Cluster) {
    let n = sleeper(c, "many");
    let object = |i: usize| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cm-{i}, namespace: {n}}}\n---\n");
    let manifest = c.file("many.yaml", &(0..12).map(object).collect::<String>());
    let t = Terminal::open(c, 100, 24);
    t.enter(&format!("kctl apply -f {}; echo co''de $?", manifest.display()));
    let screen = t.shows("code 0");
    assert_eq!(screen.lines().filter(|l| l.starts_with("configmap/cm-") && l.ends_with(" created")).count(), 12, "{screen}");
    assert!(t.history().contains("/12 configmap/cm-"), "no progress was shown:\n{:?}", t.history());
    assert!(!screen.contains("/12"), "the bar stays:\n{screen}");
    t.clear();
    let large = c.file("large", &"0123456789abcdef".repeat(256 * 1024));
    t.enter(&format!("kctl -n {n} cp {} p:/tmp/large; echo co''de $?", large.display()));
    let screen = t.shows("code 0");
    assert!(t.history().contains("/4.00 MiB"), "no progress was shown:\n{:?}", t.history());
    assert!(!screen.contains("MiB"), "the bar stays:\n{screen}");
    c.kctl(&format!("-n {n} exec p -- wc -c /tmp/large")).prints("4194304 /tmp/large\n");
    t.clear();
    let back = large.with_extension("back");
    t.enter(&format!("kctl -n {n} cp p:/tmp/large {}; echo co''de $?", back.display()));
    t.shows("code 0");
    assert_eq!(std::fs::read(&back).expect("the copy is there"), std::fs::read(&large).expect("the file is there"));
    assert!(t.history().matches("/4.00 MiB").count() > 1, "no progress was shown on the way back");
}

/// How many columns a line takes, without the escapes in it.
fn plain_width(line: &str) -> usize {
    let mut width = 0;
    let mut escaped = false;
    for c in line.trim_end().chars() {
        match c {
            '\u{1b}' => escaped = true,
            c if escaped => escaped = !c.is_ascii_alphabetic(),
            _ => width += 1,
        }
    }
    width
}

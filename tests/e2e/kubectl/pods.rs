//! Commands that go into containers: exec, attach, cp, logs, forwarded ports, debug. Their pods serve several steps each.

use tests::Cluster;

use super::Kubectl;
use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("kubectl::enters_containers_and_copies_files", enters_containers_and_copies_files),
    ("kubectl::forwards_ports_and_proxies", forwards_ports_and_proxies),
    ("kubectl::follows_logs_and_tells_events", follows_logs_and_tells_events),
    ("kubectl::runs_a_pod_for_one_command", runs_a_pod_for_one_command),
    ("kubectl::debugs_pods_and_nodes", debugs_pods_and_nodes),
];

/// A pod with a container that ends at once when it is told to.
fn pod(name: &str, fields: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: main, {fields}}}\n---\n"
    )
}

fn enters_containers_and_copies_files(c: &Cluster) {
    let k = Kubectl::new(c, "k-entered");
    let two = "  - {name: side, image: 'busybox:1', command: [sleep, 1d]}\n---\n";
    let shell = pod("shell", "image: 'busybox:1', command: [sleep, 1d]").replace("---\n", two);
    let echo = pod("echo", "image: 'busybox:1', stdin: true, command: [sh, -c, 'while read line; do echo said $line; done']");
    k.pipe("create -f -", &(shell + &echo)).ok();
    k.run("wait --for=condition=Ready pod/shell pod/echo --timeout=60s").ok();

    let output = k.pipe("exec -i shell -c main -- sh -c 'wc -c; echo to-stderr >&2; exit 7'", "12345");
    assert!(output.code == 7 && output.stdout == "5\n" && output.stderr.contains("to-stderr\n"), "{output}");
    let chosen = k.run("exec shell -- true");
    assert!(chosen.succeeded() && chosen.stderr.contains("Defaulted container \"main\" out of: main, side"), "{chosen}");
    k.run("exec shell -c nobody -- true").fails();
    let missing = k.run("exec shell -c main -- /no/such/program");
    assert!(missing.code != 0 && missing.stderr.contains("no such file or directory"), "{missing}");
    let mut terminal = k.start_on_terminal("exec -it shell -c main -- sh -c 'test -t 0 && echo terminal; read word; echo got $word'");
    terminal.shows("terminal");
    terminal.types("something\n");
    terminal.shows("got something");
    assert_eq!(terminal.ends().0, 0);

    let mut attached = k.start("attach -i echo");
    attached.types("one\n");
    attached.shows("said one\n");
    attached.types("two\n");
    attached.shows("said two\n");
    drop(attached);
    // The container goes on, and its log has it all.
    k.run("logs echo").prints("said one\nsaid two\n");

    // Every byte value, and more of them than a stream's window has room for.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let local = c.file("unused", "").with_file_name("k-copied");
    std::fs::create_dir_all(local.join("dir/below")).expect("a directory");
    std::fs::write(local.join("dir/bytes"), &bytes).expect("a file");
    std::fs::write(local.join("dir/below/text"), "text\n").expect("a file");
    let at = local.display();
    k.run(&format!("cp {at}/dir shell:/tmp/there -c side")).ok();
    k.run("exec shell -c side -- cat /tmp/there/below/text").prints("text\n");
    k.run(&format!("cp shell:/tmp/there {at}/back -c side")).ok();
    assert!(std::fs::read(local.join("back/bytes")).expect("it came back") == bytes, "other bytes came back");
    assert_eq!(std::fs::read_to_string(local.join("back/below/text")).expect("it came back"), "text\n");
    k.run(&format!("cp {at}/dir/below/text {}/shell:/tmp/one -c side", k.namespace)).ok();
    k.run(&format!("cp {}/shell:/tmp/one {at}/one -c side", k.namespace)).ok();
    assert_eq!(std::fs::read_to_string(local.join("one")).expect("it came back"), "text\n");
    k.run(&format!("cp {at}/absent shell:/tmp/absent -c side")).fails();
    k.leave();
}

fn forwards_ports_and_proxies(c: &Cluster) {
    let k = Kubectl::new(c, "k-forwarded");
    k.pipe("create -f -", &pod("web", "image: 'nginx:live'")).ok();
    k.run("expose pod web --port=8080 --target-port=80").prints("service/web exposed\n");
    k.run("wait --for=condition=Ready pod/web --timeout=60s").ok();
    let page = |url: &str| c.machine.sh(&format!("curl -fsS --max-time 5 {url}"));
    for target in ["pod/web :80", "service/web :8080"] {
        let mut forward = k.start(&format!("port-forward {target}"));
        let line = forward.line_after("Forwarding from 127.0.0.1:");
        let (port, to) = line.split_once(" -> ").expect("where from and to");
        assert_eq!(to, "80");
        for _ in 0..3 {
            page(&format!("http://127.0.0.1:{port}/")).contains("Welcome to nginx!");
        }
    }
    let refused = k.run("port-forward service/web :81").fails();
    assert!(refused.contains("Service web does not have a service port 81"), "{refused}");

    let mut proxy = k.start("proxy --port=0");
    let at = format!("http://{}", proxy.line_after("Starting to serve on "));
    page(&format!("{at}/api/v1/namespaces/{}/pods/web", k.namespace)).contains("\"kind\": \"Pod\"");
    for resource in ["pods/web:80", "services/web:8080", "pods/web"] {
        page(&format!("{at}/api/v1/namespaces/{}/{resource}/proxy/index.html", k.namespace)).contains("Welcome to nginx!");
    }
    // kubectl itself does not pass on what would run something.
    let kept = c.machine.sh(&format!("curl -sS -o /dev/null -w '%{{http_code}}' {at}/api/v1/namespaces/{}/pods/web/exec?command=true", k.namespace));
    kept.prints("403");
    k.leave();
}

fn follows_logs_and_tells_events(c: &Cluster) {
    let k = Kubectl::new(c, "k-told");
    let talk = "image: 'busybox:1', command: [sh, -c, 'echo one; echo two; until test -e /tmp/go; do sleep 0.1; done; echo three >&2']";
    let again = pod("again", "image: 'busybox:1', command: [sh, -c, 'test -e /kept/file && exec sleep 1d; touch /kept/file; echo first; exit 1'], volumeMounts: [{name: kept, mountPath: /kept}]")
        .replace("---\n", "  volumes: [{name: kept, emptyDir: {}}]\n---\n");
    k.pipe("create -f -", &(pod("talk", talk).replace("spec:\n", "spec:\n  restartPolicy: Never\n") + &again)).ok();
    k.run("wait --for=condition=Ready pod/talk --timeout=60s").ok();
    let mut follow = k.start("logs -f talk");
    follow.shows("one\ntwo\n");
    k.run("logs talk --tail=1").prints("two\n");
    k.run("logs talk --limit-bytes=3").prints("one");
    k.run("logs talk --since-time=2999-01-01T00:00:00Z").prints("");
    k.run("logs talk --since=1h --prefix").prints("[pod/talk/main] one\n[pod/talk/main] two\n");
    let stamped = k.run("logs talk --timestamps").ok();
    let stamp = stamped.lines().next().and_then(|line| line.strip_suffix(" one")).unwrap_or_else(|| panic!("{stamped}"));
    assert!(stamp.len() > "2026-01-01T00:00:00Z".len() && stamp.contains('T'), "{stamped}");
    k.run("exec talk -- touch /tmp/go").ok();
    // The follower sees the end of it and leaves by itself.
    assert_eq!(follow.ends(), (0, "one\ntwo\nthree\n".to_owned()));
    k.run("logs -l app=talk --tail=-1 --all-containers").prints("one\ntwo\nthree\n");

    k.becomes("pod again", "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}", "1 true");
    k.run("logs again --previous").prints("first\n");
    k.run("logs again").prints("");
    let none = k.run("logs talk --previous").fails();
    assert!(none.contains("previous terminated container \"main\" in pod \"talk\" not found"), "{none}");

    let told = k.run("events --for=pod/talk --no-headers").ok();
    for reason in ["Scheduled", "Pulled", "Created", "Started"] {
        assert!(told.contains(reason), "{reason} is not in\n{told}");
    }
    assert!(!told.contains("again"), "{told}");
    k.run("get events --field-selector involvedObject.name=talk,reason=Started -o 'jsonpath={.items[0].source.component} {.items[0].type}'")
        .prints("kubelet Normal");
    k.pipe("create -f -", &pod("nowhere", "image: 'busybox:1'").replace("spec:\n", "spec:\n  nodeSelector: {no: such}\n")).ok();
    let mut watch = k.start("events --watch --types=Warning --for=pod/nowhere");
    watch.shows("FailedScheduling");
    assert!(!watch.shows("nodes are available").contains("Normal"));
    k.leave();
}

fn runs_a_pod_for_one_command(c: &Cluster) {
    let k = Kubectl::new(c, "k-once");
    let options = "--rm --restart=Never --image=busybox:1 --override-type=strategic --overrides='{\"spec\":{\"terminationGracePeriodSeconds\":0}}'";
    // A container that ends at once may take the last of its output along, so each here stays until it is read.
    let mut once = k.start_on_terminal(&format!("run once -it {options} -- sh -c 'read word; test -t 0 && echo got $word; read word'"));
    once.types("something\n");
    once.shows("got something");
    once.types("enough\n");
    let (code, printed) = once.ends();
    assert!(code == 0 && printed.contains("pod \"once\" deleted from k-once namespace"), "{printed}");
    k.run("get pods -o name").prints("");
    let piped = k.pipe(&format!("run piped -i -q {options} -- sh -c 'wc -c; sleep 1'"), "12345");
    assert!(piped.code == 0 && piped.stdout.contains("5\n"), "{piped}");
    let failed = k.pipe(&format!("run failed -i {options} -- sh -c 'exit 3'"), "");
    assert_eq!(failed.code, 3, "{failed}");
    k.run("get pods -o name").prints("");
    k.leave();
}

fn debugs_pods_and_nodes(c: &Cluster) {
    let k = Kubectl::new(c, "k-debugged");
    k.pipe("create -f -", &pod("web", "image: 'nginx:live'")).ok();
    k.run("wait --for=condition=Ready pod/web --timeout=60s").ok();
    // On a terminal, in the target's processes and network.
    let mut debug = k.start_on_terminal("debug -it web --image=busybox:1 --target=main -c look -- sh");
    debug.shows("# ");
    debug.types("wget -q -O - http://127.0.0.1/; ps | grep -c [s]erve; echo $((40+2))\n");
    debug.shows("Welcome to nginx!");
    let seen = debug.shows("\n42").to_owned();
    assert!(seen.contains("\n1\r\n42"), "the target's process is to be seen: {seen}");
    debug.types("exit\n");
    assert_eq!(debug.ends().0, 0);
    k.becomes("pod web", "{.status.ephemeralContainerStatuses[?(@.name==\"look\")].state.terminated.exitCode}", "0");
    // A copy with another command.
    k.run("debug web --copy-to=copy --container=main --share-processes -- sh -c 'echo copied; sleep 1d'").ok();
    k.run("wait --for=condition=Ready pod/copy --timeout=60s").ok();
    k.run("logs copy").prints("copied\n");
    assert_eq!(k.path("pod copy", "{.spec.shareProcessNamespace} {.metadata.labels}"), "true ");
    // A node, whose root is mounted.
    let node = c.path("nodes", "{.items[0].metadata.name}");
    let mut debug = k.start(&format!("debug node/{node} -i -q --image=busybox:1 -- sh -c 'read line; ls /host; echo seen; read line'"));
    // An end of its input would detach kubectl.
    debug.types("go\n");
    let seen = debug.shows("seen\n");
    assert!(seen.contains("etc\n") && seen.contains("var\n"), "{seen}");
    debug.types("enough\n");
    assert_eq!(debug.ends().0, 0);
    k.leave();
}

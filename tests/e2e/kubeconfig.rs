//! How kctl finds its server and proves who it is: every way a kubeconfig knows, from within a pod, and what needs no server at all.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_yaml::Value;
use tests::machine::run;
use tests::{Cluster, Output, bin_dir};

use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("kubeconfig::credentials_come_from_token_files_and_plugins", credentials_come_from_token_files_and_plugins),
    ("kubeconfig::servers_are_reached_by_other_names_and_through_proxies", servers_are_reached_by_other_names_and_through_proxies),
    ("kubeconfig::several_files_are_one_and_each_keeps_what_it_holds", several_files_are_one_and_each_keeps_what_it_holds),
    ("kubeconfig::within_a_pod_no_file_is_needed", within_a_pod_no_file_is_needed),
    ("kubeconfig::what_needs_no_server_works_without_one", what_needs_no_server_works_without_one),
    ("kubeconfig::bulk_deletion_does_not_leave_its_namespace", bulk_deletion_does_not_leave_its_namespace),
];

/// The administrator's kubeconfig.
fn admin(c: &Cluster) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(c.kubeconfig()).expect("a started cluster has a kubeconfig")).expect("it is YAML")
}

/// A kubeconfig of one cluster and one user, given as YAML in place of the administrator's where not empty.
fn config(c: &Cluster, name: &str, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let mut config = admin(c);
    let (mut cluster, mut user) = (config["clusters"][0]["cluster"].clone(), config["users"][0]["user"].clone());
    change(&mut cluster, &mut user);
    (config["clusters"][0]["cluster"], config["users"][0]["user"]) = (cluster, user);
    c.file(name, &serde_yaml::to_string(&config).expect("YAML can be written")).display().to_string()
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).expect("the test's YAML is well-formed")
}

/// kctl with a kubeconfig of its own.
fn with(c: &Cluster, kubeconfig: &str, line: &[&str]) -> Output {
    let mut command = c.client(bin_dir().join("kctl"), line);
    command.env("KUBECONFIG", kubeconfig);
    run(command)
}

const WHO: &[&str] = &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];

fn credentials_come_from_token_files_and_plugins(c: &Cluster) {
    let n = c.namespace("credentials");
    c.kctl(&format!("-n {n} create serviceaccount robot")).ok();
    let token = c.kctl(&format!("-n {n} create token robot")).ok().trim().to_owned();
    let robot = format!("system:serviceaccount:{n}:robot");
    // A path in a kubeconfig is meant from where the file lies.
    c.file("robot.token", &token);
    let by_file = config(c, "tokenfile.config", |_, user| *user = yaml("tokenFile: robot.token"));
    with(c, &by_file, WHO).prints(&robot);
    let expired = config(c, "expired.config", |_, user| *user = yaml("token: eyJhbGciOiJub25lIn0.e30."));
    assert_eq!(with(c, &expired, &["get", "pods"]).fails(), "error: You must be logged in to the server (Unauthorized)\n");

    let plugin = c.file(
        "plugin",
        &format!(
            "#!/bin/sh\nprintf '%s' \"$KUBERNETES_EXEC_INFO\" >{0}\nprintf '%s' \"$1 $EXTRA\" >{0}.arguments\necho '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"{token}\"}}}}'\n",
            c.file("plugin.info", "").display()
        ),
    );
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).expect("the test's own file");
    let exec = |name: &str, text: &str| {
        config(c, name, |_, user| {
            *user = yaml(&format!("exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, {text}}}"));
        })
    };
    let whole = exec("exec.config", "command: ./plugin, args: [first], env: [{name: EXTRA, value: more}], provideClusterInfo: true");
    with(c, &whole, WHO).prints(&robot);
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(plugin.with_extension("info")).expect("the plugin ran")).expect("JSON");
    assert_eq!(info["spec"]["cluster"]["server"].as_str(), admin(c)["clusters"][0]["cluster"]["server"].as_str());
    assert_eq!(info["spec"]["interactive"], false);
    assert_eq!(std::fs::read_to_string(plugin.with_extension("info.arguments")).expect("the plugin ran"), "first more");
    let failing = exec("failing.config", "command: /bin/false");
    assert_eq!(
        with(c, &failing, &["get", "pods"]).fails(),
        "Unable to connect to the server: getting credentials: exec: executable /bin/false failed with exit code 1\n"
    );
    let missing = exec("missing.config", "command: absent-plugin, installHint: Install it so.");
    let said = with(c, &missing, &["get", "pods"]).fails();
    assert!(said.contains("exec: executable absent-plugin not found\n") && said.ends_with("\n\nInstall it so.\n"), "{said}");
}

fn servers_are_reached_by_other_names_and_through_proxies(c: &Cluster) {
    let named = config(c, "named.config", |cluster, _| cluster["tls-server-name"] = "kubernetes.default".into());
    with(c, &named, &["get", "namespace", "default", "-o", "name"]).prints("namespace/default\n");
    let wrong = config(c, "wrong.config", |cluster, _| cluster["tls-server-name"] = "absent.example.com".into());
    assert!(with(c, &wrong, &["get", "pods"]).fails().starts_with("Unable to connect to the server: "));
    let unknown = config(c, "unknown.config", |cluster, _| drop(cluster.as_mapping_mut().map(|m| m.remove("certificate-authority-data"))));
    assert_eq!(
        with(c, &unknown, &["get", "pods"]).fails(),
        "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority\n"
    );
    let insecure = config(c, "insecure.config", |cluster, _| {
        cluster.as_mapping_mut().map(|m| m.remove("certificate-authority-data"));
        cluster["insecure-skip-tls-verify"] = true.into();
    });
    with(c, &insecure, &["get", "namespace", "default", "-o", "name"]).prints("namespace/default\n");
    let (proxy, passed) = proxy(c);
    let through = config(c, "proxy.config", |cluster, _| cluster["proxy-url"] = format!("http://{proxy}").into());
    with(c, &through, &["get", "namespace", "default", "-o", "name"]).prints("namespace/default\n");
    assert!(passed.recv().is_ok_and(|line| line.starts_with("CONNECT ")), "nothing went through the proxy");
}

/// An HTTP proxy on the cluster's machine for one connection: its address, and the request it got.
fn proxy(c: &Cluster) -> (std::net::SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = c.machine.listen();
    listener.set_nonblocking(false).expect("a socket can block");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (sender, receiver) = std::sync::mpsc::channel();
    let enter = c.machine.entrance();
    std::thread::spawn(move || {
        enter();
        let (mut client, _) = listener.accept().expect("kctl connects");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|n| n == 1) {
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let _ = sender.send(head);
        let mut server = TcpStream::connect(target).expect("the server is there");
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("kctl waits");
        let (mut from_client, mut to_server) = (client.try_clone().expect("a socket can be shared"), server.try_clone().expect("likewise"));
        std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let _ = std::io::copy(&mut server, &mut client);
    });
    (address, receiver)
}

fn several_files_are_one_and_each_keeps_what_it_holds(c: &Cluster) {
    // The first file to name something wins; what is changed is written where it stands.
    let first = c.file("first.config", "apiVersion: v1\nkind: Config\ncurrent-context: mine\ncontexts:\n- name: mine\n  context: {cluster: kserver, user: kserver, namespace: kube-system}\nown: {kept: true}\n");
    std::fs::set_permissions(&first, std::fs::Permissions::from_mode(0o640)).expect("the test's own file");
    let mut second = admin(c);
    let (cluster, user) = (second["clusters"][0]["name"].clone(), second["users"][0]["name"].clone());
    second["current-context"] = "absent".into();
    let second = c.file("second.config", &serde_yaml::to_string(&second).expect("YAML can be written"));
    let text = std::fs::read_to_string(&first).expect("it was just written");
    let text = text.replace("cluster: kserver", &format!("cluster: {}", cluster.as_str().unwrap_or_default()));
    std::fs::write(&first, text.replace("user: kserver", &format!("user: {}", user.as_str().unwrap_or_default()))).expect("likewise");
    let both = format!("{}:{}:/nowhere/third.config", first.display(), second.display());
    with(c, &both, &["config", "current-context"]).prints("mine\n");
    with(c, &both, &["get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.metadata.namespace}"]).prints("kube-system");
    with(c, &both, &["config", "set-context", "--current", "--namespace=default"]).prints("Context \"mine\" modified.\n");
    let kept = std::fs::read_to_string(&first).expect("it is still there");
    assert!(kept.contains("kept: true") && kept.contains("namespace: default"), "{kept}");
    assert_eq!(std::fs::metadata(&first).expect("it is still there").permissions().mode() & 0o777, 0o640);
    assert!(!std::fs::read_to_string(&second).expect("it is still there").contains("mine"), "the second file was written");
}

/// kctl without a kubeconfig, where a service account is mounted as in a pod.
fn within_a_pod_no_file_is_needed(c: &Cluster) {
    let n = c.namespace("inside");
    c.kctl(&format!("-n {n} create serviceaccount robot")).ok();
    c.kctl(&format!("create clusterrolebinding inside --clusterrole=view --serviceaccount={n}:robot")).ok();
    let token = c.kctl(&format!("-n {n} create token robot")).ok();
    let authority = c.kctl(&format!("-n {n} get configmap kube-root-ca.crt -o jsonpath={{.data.ca\\.crt}}")).ok();
    let directory = c.file("inside", "").with_extension("d");
    std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
    for (name, text) in [("token", token.trim()), ("ca.crt", authority.as_str()), ("namespace", n)] {
        std::fs::write(directory.join(name), text).expect("the temporary directory can be written");
    }
    let server = admin(c)["clusters"][0]["cluster"]["server"].as_str().unwrap_or_default().to_owned();
    let port = server.rsplit(':').next().unwrap_or_default().to_owned();
    let script = "mount -t tmpfs none /var/run && mkdir -p /var/run/secrets/kubernetes.io && ln -s \"$MOUNTED\" /var/run/secrets/kubernetes.io/serviceaccount && exec \"$@\"";
    let kctl = |line: &[&str]| {
        let program = bin_dir().join("kctl").display().to_string();
        let mut command: Command = c.client("unshare".into(), &[&["-m", "sh", "-c", script, "sh", &program], line].concat());
        command.env("MOUNTED", &directory).env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", &port);
        command.env_remove("KUBECONFIG").env("HOME", directory.join("home"));
        run(command)
    };
    kctl(WHO).prints(&format!("system:serviceaccount:{n}:robot"));
    kctl(&["get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.metadata.namespace}"]).prints(n);
}

fn what_needs_no_server_works_without_one(c: &Cluster) {
    let home = c.file("offline", "").with_extension("home");
    let manifest = c.file(
        "offline.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: old}]}\n",
    );
    let file = manifest.display().to_string();
    let kctl = |kubeconfig: &Path, line: &[&str]| {
        let mut command = c.client(bin_dir().join("kctl"), line);
        command.env("KUBECONFIG", kubeconfig).env("HOME", &home);
        run(command)
    };
    let nowhere = Path::new("/nowhere/config");
    for line in [
        ["create", "deployment", "web", "--image=x", "--dry-run=client", "-o", "name"].as_slice(),
        &["create", "-f", &file, "--dry-run=client", "-o", "name"],
        &["label", "-f", &file, "x=y", "--local", "-o", "name"],
        &["annotate", "-f", &file, "x=y", "--local", "-o", "name"],
        &["set", "image", "-f", &file, "c=new", "--local", "-o", "name"],
        &["set", "env", "-f", &file, "A=b", "--local", "-o", "name"],
        &["set", "resources", "-f", &file, "--limits=cpu=1", "--local", "-o", "name"],
        &["set", "serviceaccount", "-f", &file, "robot", "--local", "-o", "name"],
        &["patch", "-f", &file, "-p", "{}", "--local", "-o", "name"],
    ] {
        kctl(nowhere, line).prints("deployment.apps/web\n");
    }
    let refused = "The connection to the server localhost:8080 was refused - did you specify the right host or port?\n";
    assert_eq!(kctl(nowhere, &["explain", "pods.spec"]).fails(), refused);
    // What was explained once is known for good, also when its server is gone.
    let known = kctl(&c.kubeconfig(), &["explain", "deployments.spec.replicas"]).contains("Number of desired pods");
    let gone = config(c, "gone.config", |_, _| {});
    let mut command = c.machine.command("unshare");
    command.args(["-n", &bin_dir().join("kctl").display().to_string(), "explain", "deployments.spec.replicas"]);
    command.env("KUBECONFIG", &gone).env("HOME", &home);
    run(command).prints(&known);
}

fn bulk_deletion_does_not_leave_its_namespace(c: &Cluster) {
    let n = c.namespace("bulk");
    for kind in ["namespaces", "clusterroles", "nodes"] {
        let refused = c.kctl(&format!("-n {n} delete {kind} --all --dry-run=server"));
        assert!(refused.code == 1 && refused.stdout.is_empty() && refused.stderr.contains("namespace"), "{refused}");
    }
    c.kctl(&format!("-n {n} create configmap one")).ok();
    c.kctl(&format!("-n {n} delete configmap one")).contains("configmap \"one\" deleted");
    // All that a namespace holds, and nothing that it does not.
    c.kctl(&format!("-n {n} create configmap two")).ok();
    let everything = c.kctl(&format!("-n {n} get everything -o name")).ok();
    assert!(everything.contains("configmap/two\n") && everything.contains("serviceaccount/default\n"), "{everything}");
    assert!(!everything.contains("clusterrole") && !everything.contains("node/"), "{everything}");
}

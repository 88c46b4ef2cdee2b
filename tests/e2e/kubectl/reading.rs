//! Commands that read: every form of output, what the server has, and what one may do.

use serde_json::Value;
use tests::{Cluster, eventually};

use super::Kubectl;
use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("kubectl::prints_objects_in_every_form", prints_objects_in_every_form),
    ("kubectl::tells_what_the_server_has", tells_what_the_server_has),
    ("kubectl::tells_who_one_is_and_what_one_may", tells_who_one_is_and_what_one_may),
    ("kubectl::denies_a_certificate", denies_a_certificate),
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn prints_objects_in_every_form(c: &Cluster) {
    let k = Kubectl::new(c, "k-forms");
    k.run("create service clusterip web --tcp=80:8080 --tcp=443:8443").ok();
    k.run("create configmap m --from-literal=a=1 --from-literal=b.c=2").ok();
    let get = |form: &str| k.run(&format!("get service web {form}"));
    let whole = json(&get("-o json").ok());
    assert_eq!(whole["spec"]["ports"][1]["targetPort"], 8443, "{whole}");
    assert!(whole["metadata"].get("managedFields").is_none(), "managedFields are shown on demand");
    assert!(json(&get("-o json --show-managed-fields").ok())["metadata"]["managedFields"][0]["manager"] == "kubectl-create");
    // KYAML is YAML, so both say the same.
    for form in ["-o yaml", "-o kyaml"] {
        let text = get(form).ok();
        assert_eq!(serde_yaml::from_str::<Value>(&text).expect("YAML"), whole, "{form}");
        assert_eq!(form == "-o kyaml", text.starts_with("---\n{\n  apiVersion: \"v1\",\n"), "{text}");
    }
    get("-o name").prints("service/web\n");
    let rows = get("-o wide").ok();
    assert!(rows.starts_with("NAME") && rows.contains("SELECTOR") && rows.contains("80/TCP,443/TCP") && rows.contains("app=web"), "{rows}");
    get("-o 'jsonpath={range .spec.ports[*]}{.name}:{.port} {end}'").prints("80-8080:80 443-8443:443 ");
    get("-o 'jsonpath={.spec.ports[?(@.port==443)].targetPort}'").prints("8443");
    assert_eq!(json(&get("-o 'jsonpath-as-json={.spec.ports[*].port}'").ok()), json("[80, 443]"));
    get("-o 'go-template={{range .spec.ports}}{{.port}}/{{.protocol}} {{end}}'").prints("80/TCP 443/TCP ");
    get("-o custom-columns=NAME:.metadata.name,PORTS:.spec.ports[*].port").prints("NAME   PORTS\nweb    80,443\n");
    for (form, name, text, printed) in [
        ("jsonpath-file", "k-path", "{.metadata.name}", "web"),
        ("go-template-file", "k-template", "{{.kind}}\n", "Service\n"),
        ("custom-columns-file", "k-columns", "N             T\n.metadata.name .spec.type\n", "N     T\nweb   ClusterIP\n"),
    ] {
        get(&format!("-o {form}={}", c.file(name, text).display())).prints(printed);
    }
    k.run("get configmap m -o 'jsonpath={.data.b\\.c}'").prints("2");
    let list = json(&k.run("get services,configmaps -o json --chunk-size=1").ok());
    assert_eq!(list["kind"], "List");
    k.run("get services,configmaps --field-selector metadata.name!=kube-root-ca.crt -o name").prints("service/web\nconfigmap/m\n");
    k.run("get configmaps --sort-by=.metadata.name -o custom-columns=N:.metadata.name --no-headers").prints("kube-root-ca.crt\nm\n");
    k.run("get configmaps -A --no-headers").contains("k-forms");
    assert!(k.run("get nodes -o wide").ok().contains("containerd://"));
    k.run("get configmap m --subresource=status").fails();
    k.run("describe configmap m").contains("b.c:\n----\n2\n");
}

fn tells_what_the_server_has(c: &Cluster) {
    let explained = c.kubectl("explain deployment.spec.strategy.rollingUpdate").ok();
    for part in
        ["GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n", "FIELD: rollingUpdate <RollingUpdateDeployment>", "  maxSurge\t<IntOrString>"]
    {
        assert!(explained.contains(part), "{part:?} is not in\n{explained}");
    }
    c.kubectl("explain pods.spec.containers --recursive").contains("    successThreshold\t<integer>\n");
    c.kubectl("explain hpa --api-version=autoscaling/v1").contains("VERSION:    v1\n");
    c.kubectl("explain service.spec.type --output=plaintext-openapiv2").contains("FIELD:    type <string>");
    let refused = c.kubectl("explain pod.spec.nonsense").fails();
    assert!(refused.contains("field \"nonsense\" does not exist"), "{refused}");

    let wide = c.kubectl("api-resources -o wide --no-headers").ok();
    let row = |name: &str| {
        let line = wide.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_else(|| panic!("{name} is not in\n{wide}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("pods"), ["pods", "po", "v1", "true", "Pod", "create,delete,deletecollection,get,list,patch,update,watch", "all"]);
    assert_eq!(row("nodes")[1..5], ["no", "v1", "false", "Node"]);
    assert_eq!(row("deployments")[1..5], ["deploy", "apps/v1", "true", "Deployment"]);
    assert_eq!(row("tokenreviews")[1..], ["authentication.k8s.io/v1", "false", "TokenReview", "create"]);
    let names = |flags: &str| c.kubectl(&format!("api-resources -o name {flags}")).ok().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names("--api-group=batch --sort-by=name"), ["cronjobs.batch", "jobs.batch"]);
    let cluster = names("--namespaced=false");
    assert!(cluster.contains(&"namespaces".into()) && !cluster.contains(&"pods".into()), "{cluster:?}");
    let all = names("--categories=all --verbs=list,watch");
    assert!(all.contains(&"statefulsets.apps".into()) && !all.contains(&"configmaps".into()), "{all:?}");
    c.kubectl("api-versions").contains("networking.k8s.io/v1\n");
    c.kubectl("cluster-info").contains("Kubernetes control plane");
}

fn tells_who_one_is_and_what_one_may(c: &Cluster) {
    let k = Kubectl::new(c, "k-rights");
    let me = json(&k.run("auth whoami -o json").ok());
    assert_eq!(me["status"]["userInfo"]["username"], "kubernetes-admin");
    let jane = json(&k.run("auth whoami -o json --as=jane --as-group=devs --as-uid=7 --as-user-extra=team=a").ok());
    assert_eq!(jane["status"]["userInfo"], json(r#"{"username":"jane","uid":"7","groups":["devs","system:authenticated"],"extra":{"team":["a"]}}"#));

    let rules = |who: &str| {
        let table = k.run(&format!("auth can-i --list {who} --no-headers")).ok();
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert!(rules("").contains(&"*.* [] [] [*]".into()), "{:?}", rules(""));
    let anyone = rules("--as=jane");
    assert!(anyone.contains(&"selfsubjectaccessreviews.authorization.k8s.io [] [] [create]".into()), "{anyone:?}");
    assert!(!anyone.iter().any(|rule| rule.starts_with("pods ")), "{anyone:?}");
    k.run("auth can-i list pods --as=jane").fails();

    // A role and its binding by `auth reconcile` (which does not give them a namespace), then the rules and what they allow agree.
    let roles = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: k-rights}\nrules:\n- {apiGroups: [''], resources: [configmaps], resourceNames: [m], verbs: [get]}\n- {apiGroups: [''], resources: [pods, pods/log], verbs: [list]}\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: readers, namespace: k-rights}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}\nsubjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: devs}]\n";
    let reconciled = k.pipe("auth reconcile -f -", roles).ok();
    assert!(
        reconciled.contains("role.rbac.authorization.k8s.io/reader reconciled")
            && reconciled.contains("rolebinding.rbac.authorization.k8s.io/readers reconciled"),
        "{reconciled}"
    );
    let who = "--as=jane --as-group=devs";
    let found = eventually("the rules are in force", || {
        let found = rules(who);
        if found.contains(&"configmaps [] [m] [get]".into()) { Ok(found) } else { Err(format!("{found:?}")) }
    });
    assert!(found.contains(&"pods [] [] [list]".into()) && found.contains(&"pods/log [] [] [list]".into()), "{found:?}");
    k.run("create configmap m").ok();
    k.run("create configmap n").ok();
    for (line, may) in [
        ("list pods", true),
        ("get configmap/m", true),
        ("get configmap/n", false),
        ("list pods --subresource=log", true),
        ("delete pods", false),
        ("get /healthz", true),
    ] {
        let asked = k.run(&format!("auth can-i {line} {who}"));
        assert_eq!((asked.stdout.trim(), asked.code), if may { ("yes", 0) } else { ("no", 1) }, "{asked}");
    }
    k.run(&format!("get configmap m {who}")).ok();
    let refused = k.run(&format!("get configmap n {who}")).fails();
    assert!(refused.contains("configmaps \"n\" is forbidden: User \"jane\" cannot get resource \"configmaps\""), "{refused}");
    k.run("auth can-i create pods --as=system:serviceaccount:k-rights:default").fails();
    // Reconciling again adds what is missing and takes nothing away.
    k.run(r#"patch role reader --type=json -p '[{"op":"replace","path":"/rules","value":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}]'"#).ok();
    k.pipe("auth reconcile -f -", roles).ok();
    assert_eq!(k.path("role reader", "{.rules[*].resources[*]}"), "secrets configmaps pods pods/log");
}

fn denies_a_certificate(c: &Cluster) {
    let request = c
        .machine
        .sh("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /CN=ann 2>/dev/null | base64 -w0")
        .ok();
    let manifest = format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: ann}}\nspec: {{request: {request}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}}\n"
    );
    c.pipe(tests::stock("kubectl"), "create -f -", &manifest).ok();
    c.kubectl("certificate deny ann").prints("certificatesigningrequest.certificates.k8s.io/ann denied\n");
    c.kubectl("wait --for=condition=Denied csr/ann --timeout=30s").prints("certificatesigningrequest.certificates.k8s.io/ann condition met\n");
    c.kubectl("get csr ann --no-headers").contains("Denied");
    let both = c.kubectl("certificate approve ann").fails();
    assert!(both.contains("certificate signing request \"ann\" is already Denied"), "{both}");
    assert_eq!(c.path("csr ann", "{.status.certificate}"), "");
    c.kubectl("delete csr ann").ok();
}

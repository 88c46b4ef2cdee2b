//! The objects that `debug` sends: an ephemeral container, a copy of a pod, a pod on a node (`k8s.io/kubectl/pkg/cmd/debug/debug.go`).
//! Pure but for random names, which it tells on stdout as upstream does.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};

use super::profile::{Keep, Profile, Style, push};
use crate::{apply, podspec, print};

/// What the flags say about the debugging container and its pod.
#[derive(Debug)]
pub struct Plan {
    /// Its name; empty lets one be made up.
    pub container: String,
    /// Its image.
    pub image: String,
    /// Its pull policy, empty for the server's default.
    pub pull_policy: String,
    /// Its environment: of two values of one name the later holds.
    pub env: BTreeMap<String, String>,
    /// Its command, or only the arguments.
    pub words: Vec<String>,
    /// The words are arguments.
    pub arguments_only: bool,
    /// It keeps stdin open.
    pub stdin: bool,
    /// It has a terminal.
    pub tty: bool,
    /// The container whose processes it sees.
    pub target: String,
    /// Its privileges.
    pub profile: Profile,
    /// Fields of a container that change what the profile says.
    pub custom: Option<Value>,
    /// What a copy keeps.
    pub keep: Keep,
    /// New images of a copy's containers; `*` stands for all.
    pub set_images: Vec<(String, String)>,
    /// Whether a copy shares its processes; none leaves it to the profile.
    pub share_processes: Option<bool>,
    /// A copy runs on the same node.
    pub same_node: bool,
    /// Nothing is told but results.
    pub quiet: bool,
}

impl Plan {
    /// A pod with the ephemeral container, which is the last one, and its name.
    pub fn ephemeral(&self, pod: &Value) -> Result<(Value, String)> {
        let name = self.name_in(pod)?;
        let mut container = self.new_container(&name);
        if !self.target.is_empty() {
            container["targetContainerName"] = json!(self.target);
        }
        let mut changed = pod.clone();
        push(&mut changed["spec"]["ephemeralContainers"], container);
        self.profile.apply(&mut changed, &name, Style::Ephemeral, self.keep);
        self.customize(&mut changed, "ephemeralContainers", &name)?;
        Ok((changed, name))
    }

    /// A copy of a pod, and the name of the container to attach to; none when only images change.
    pub fn copy(&self, pod: &Value, to: &str) -> Result<(Value, Option<String>)> {
        let mut spec = pod["spec"].clone();
        let fields = spec.as_object_mut().ok_or_else(|| anyhow!("the pod has no spec"))?;
        fields.remove("ephemeralContainers");
        if let Some(share) = self.share_processes {
            fields.insert("shareProcessNamespace".into(), json!(share));
        }
        if !self.same_node {
            fields.remove("nodeName");
        }
        for container in fields.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
            let of = |name: &str| self.set_images.iter().rev().find(|(n, _)| n == name).map(|(_, image)| image);
            if let Some(image) = container["name"].as_str().and_then(of).or_else(|| of("*")) {
                container["image"] = json!(image);
            }
        }
        let mut metadata = json!({ "name": to, "namespace": pod["metadata"]["namespace"] });
        for field in ["labels", "annotations"] {
            if let Some(value) = pod["metadata"].get(field) {
                metadata[field] = value.clone();
            }
        }
        let mut copy = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        let there = !self.container.is_empty() && podspec::container_names(&copy["spec"]).contains(&self.container);
        if !there && self.image.is_empty() {
            if self.set_images.is_empty() {
                bail!("you must specify image when creating new container");
            }
            return Ok((copy, None));
        }
        let name = if there { self.container.clone() } else { self.name_in(&copy)? };
        if !there {
            push(&mut copy["spec"]["containers"], json!({ "name": name, "terminationMessagePolicy": "File" }));
        }
        let changed = copy["spec"].as_object_mut().map(podspec::containers_mut).into_iter().flatten().find(|c| c["name"] == *name);
        if let Some(container) = changed.and_then(Value::as_object_mut) {
            self.describe(container);
        }
        self.profile.apply(&mut copy, &name, Style::Copy, self.keep);
        self.customize(&mut copy, "containers", &name)?;
        Ok((copy, Some(name)))
    }

    /// A pod in the namespaces of a node, and its container's name.
    pub fn node(&self, node: &str) -> Result<(Value, String)> {
        let container = if self.container.is_empty() { "debugger" } else { &self.container };
        let name = format!("node-debugger-{node}-{}", suffix());
        if !self.quiet {
            print::emit(&format!("Creating debugging pod {name} with container {container} on node {node}.\n"))?;
        }
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app.kubernetes.io/managed-by": "kubectl-debug" } },
            "spec": {
                "containers": [self.new_container(container)],
                "nodeName": node,
                "restartPolicy": "Never",
                "tolerations": [{ "operator": "Exists" }],
            },
        });
        self.profile.apply(&mut pod, container, Style::Node, self.keep);
        self.customize(&mut pod, "containers", container)?;
        Ok((pod, container.to_owned()))
    }

    fn new_container(&self, name: &str) -> Value {
        let mut container = Map::new();
        container.insert("name".into(), json!(name));
        container.insert("resources".into(), json!({}));
        container.insert("terminationMessagePolicy".into(), json!("File"));
        self.describe(&mut container);
        Value::Object(container)
    }

    /// Writes what the flags say; what they leave out stays as it was, but for stdin and the terminal.
    fn describe(&self, container: &mut Map<String, Value>) {
        if !self.words.is_empty() {
            if self.arguments_only {
                container.insert("args".into(), json!(self.words));
            } else {
                container.insert("command".into(), json!(self.words));
                container.remove("args");
            }
        }
        if !self.env.is_empty() {
            let env = self.env.iter().map(|(k, v)| if v.is_empty() { json!({ "name": k }) } else { json!({ "name": k, "value": v }) });
            container.insert("env".into(), env.collect());
        }
        for (field, value) in [("image", &self.image), ("imagePullPolicy", &self.pull_policy)] {
            if !value.is_empty() {
                container.insert(field.into(), json!(value));
            }
        }
        for (field, on) in [("stdin", self.stdin), ("tty", self.tty)] {
            container.remove(field);
            if on {
                container.insert(field.into(), json!(true));
            }
        }
    }

    fn customize(&self, pod: &mut Value, field: &str, name: &str) -> Result<()> {
        let Some(custom) = &self.custom else { return Ok(()) };
        let mut patch = custom.clone();
        patch["name"] = json!(name);
        if !pod["spec"][field].as_array().into_iter().flatten().any(|c| c["name"] == name) {
            let sort = if field == "containers" { "" } else { "ephemeral " };
            bail!("unable to find the {name} {sort}container in the pod {}", pod["metadata"]["name"].as_str().unwrap_or_default());
        }
        apply::local::merge(pod, &json!({ "spec": { field: [patch] } }), "Pod");
        Ok(())
    }

    /// The name the flags give, or one that no container of the pod has.
    fn name_in(&self, pod: &Value) -> Result<String> {
        if !self.container.is_empty() {
            return Ok(self.container.clone());
        }
        let taken = podspec::container_names(&pod["spec"]);
        let mut name = format!("debugger-{}", suffix());
        while taken.contains(&name) {
            name = format!("debugger-{}", suffix());
        }
        if !self.quiet {
            print::emit(&format!("Defaulting debug container name to {name}.\n"))?;
        }
        Ok(name)
    }
}

/// Five characters that make a name unique, from upstream's alphabet.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // The keys of a hasher are the only randomness that the standard library gives away.
    let mut random = RandomState::new().build_hasher().finish();
    let mut next = || {
        let at = (random % ALPHABET.len() as u64) as usize;
        random /= ALPHABET.len() as u64;
        char::from(ALPHABET[at])
    };
    (0..5).map(|_| next()).collect()
}

/// Whether a container may lack privileges that its profile gives, because its pod runs as another user than root.
pub fn lacks_privileges(pod: &Value, container: &Value) -> bool {
    let as_user = pod["spec"]["securityContext"]["runAsUser"].as_i64().unwrap_or(0);
    let context = &container["securityContext"];
    let asks = context["privileged"] == true || context["capabilities"]["add"].as_array().is_some_and(|a| !a.is_empty());
    as_user != 0 && asks && context["runAsUser"] != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            container: String::new(),
            image: "busybox".into(),
            pull_policy: String::new(),
            env: BTreeMap::from([("A".into(), "1".into())]),
            words: vec!["sh".into()],
            arguments_only: false,
            stdin: true,
            tty: false,
            target: "app".into(),
            profile: Profile::General,
            custom: None,
            keep: Keep { init_containers: true, ..Keep::default() },
            set_images: Vec::new(),
            share_processes: None,
            same_node: false,
            quiet: true,
        }
    }

    fn pod() -> Value {
        json!({
            "metadata": { "name": "p", "namespace": "n", "labels": { "a": "b" } },
            "spec": {
                "nodeName": "here",
                "containers": [{ "name": "app", "image": "nginx", "args": ["x"], "stdin": true }, { "name": "side", "image": "envoy" }],
                "ephemeralContainers": [{ "name": "old" }],
            },
        })
    }

    #[test]
    fn an_ephemeral_container_joins_the_others() {
        let (changed, name) = plan().ephemeral(&pod()).unwrap();
        assert!(name.starts_with("debugger-") && name.len() == 14, "{name}");
        let wanted = json!({
            "name": name, "image": "busybox", "command": ["sh"], "env": [{ "name": "A", "value": "1" }], "stdin": true, "resources": {},
            "targetContainerName": "app", "terminationMessagePolicy": "File", "securityContext": { "capabilities": { "add": ["SYS_PTRACE"] } },
        });
        assert_eq!(changed["spec"]["ephemeralContainers"], json!([{ "name": "old" }, wanted]));
    }

    #[test]
    fn a_copy_takes_the_container_that_is_named_or_a_new_one() {
        let images = vec![("*".to_owned(), "a".to_owned()), ("app".to_owned(), "b".to_owned())];
        let (copy, name) = Plan { image: String::new(), set_images: images, ..plan() }.copy(&pod(), "c").unwrap();
        assert_eq!((name, &copy["metadata"]["name"], &copy["spec"]["nodeName"]), (None, &json!("c"), &Value::Null));
        assert_eq!([&copy["spec"]["containers"][0]["image"], &copy["spec"]["containers"][1]["image"]], ["b", "a"]);
        let named = Plan { container: "app".into(), image: String::new(), stdin: false, same_node: true, ..plan() };
        let (copy, name) = named.copy(&pod(), "c").unwrap();
        assert_eq!((name.as_deref(), &copy["spec"]["nodeName"]), (Some("app"), &json!("here")));
        let app = &copy["spec"]["containers"][0];
        assert_eq!((&app["image"], &app["command"], app.get("args"), app.get("stdin")), (&json!("nginx"), &json!(["sh"]), None, None));
        assert!(copy["spec"].get("ephemeralContainers").is_none());
        let (copy, name) = Plan { container: "new".into(), ..plan() }.copy(&pod(), "c").unwrap();
        assert_eq!((name.as_deref(), &copy["spec"]["containers"][2]["image"]), (Some("new"), &json!("busybox")));
        assert!(Plan { image: String::new(), ..plan() }.copy(&pod(), "c").is_err());
    }

    #[test]
    fn a_custom_profile_is_merged_into_the_container() {
        let custom = json!({ "env": [{ "name": "B", "value": "2" }], "securityContext": { "runAsUser": 0 } });
        let (pod, name) = Plan { custom: Some(custom), ..plan() }.node("n1").unwrap();
        let container = &pod["spec"]["containers"][0];
        assert_eq!((name.as_str(), container["env"].as_array().map(Vec::len)), ("debugger", Some(2)));
        assert_eq!((&container["securityContext"]["runAsUser"], &container["image"]), (&json!(0), &json!("busybox")));
        assert!(pod["metadata"]["name"].as_str().unwrap().starts_with("node-debugger-n1-"));
    }

    #[test]
    fn privileges_under_another_user_are_worth_a_warning() {
        let pod = json!({ "spec": { "securityContext": { "runAsUser": 1000 } } });
        let privileged = json!({ "securityContext": { "privileged": true } });
        assert!(lacks_privileges(&pod, &privileged));
        assert!(!lacks_privileges(&json!({}), &privileged));
        assert!(!lacks_privileges(&pod, &json!({ "securityContext": { "privileged": true, "runAsUser": 0 } })));
        assert!(!lacks_privileges(&pod, &json!({})));
    }
}

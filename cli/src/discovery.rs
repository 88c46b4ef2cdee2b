//! Which kinds the server has, from aggregated discovery, kept on disk between runs.
//!
//! Owns fetching, caching and the rules by which a word on the command line names a kind.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::Client;

/// One resource type of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// API group, empty for core.
    pub group: String,
    /// API version without its group.
    pub version: String,
    /// `Deployment`
    pub kind: String,
    /// `deployments`
    pub plural: String,
    /// `deployment`
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// `deploy`
    #[serde(default)]
    pub short_names: Vec<String>,
    /// `all`
    #[serde(default)]
    pub categories: Vec<String>,
    /// `get`, `list`, …
    #[serde(default)]
    pub verbs: Vec<String>,
    /// `status`, `scale`, …
    #[serde(default)]
    pub subresources: Vec<String>,
}

impl Kind {
    /// `apps/v1`, or `v1` for core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
    /// `deployments.apps`, as errors name it.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
    /// `deployment.apps`, as results name it.
    pub fn printed(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }
    /// The URL path of its objects in a namespace, or everywhere.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{}/{}", escape(namespace), self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }
    /// The URL path of one object.
    pub fn object(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), escape(name))
    }
    /// Whether it is this kind of this group.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
    /// Whether the server offers a verb on it.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.is_empty() || self.verbs.iter().any(|v| v == verb)
    }
    /// A kind written down in the program, for objects it makes itself.
    pub fn built_in(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Kind {
        Kind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            namespaced,
            ..Kind::default()
        }
    }
}

/// Escapes a path segment or query value.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~:".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Every kind of one server, preferred versions first within a group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Discovery {
    fetched: u64,
    /// The kinds in the server's order.
    #[serde(with = "shared_kinds")]
    pub kinds: Vec<Rc<Kind>>,
    /// Group versions in the server's order, as `api-versions` lists them.
    pub versions: Vec<String>,
    #[serde(skip)]
    fresh: bool,
}

/// Kinds are handed out shared, and stored plain.
mod shared_kinds {
    use std::rc::Rc;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Kind;

    pub(super) fn serialize<S: Serializer>(kinds: &[Rc<Kind>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(kinds.iter().map(Rc::as_ref))
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rc<Kind>>, D::Error> {
        Ok(Vec::<Kind>::deserialize(deserializer)?.into_iter().map(Rc::new).collect())
    }
}

const TTL: Duration = Duration::from_secs(6 * 3600);
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// Where what is known of one server is kept.
pub fn cache_of(client: &Client, cache: &Path) -> PathBuf {
    let host: String = client.host().chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' }).collect();
    cache.join("kctl").join(host)
}

/// Keeps something for later runs. It is a convenience: that it cannot be written is not worth a word.
pub fn keep(file: &Path, what: &impl Serialize) {
    let Some(directory) = file.parent() else { return };
    let Ok(bytes) = serde_json::to_vec(what) else { return };
    let written = std::fs::create_dir_all(directory).and_then(|()| tempfile::NamedTempFile::new_in(directory)).and_then(|mut t| {
        std::io::Write::write_all(&mut t, &bytes)?;
        t.persist(file).map_err(|e| e.error)
    });
    drop(written);
}

impl Discovery {
    /// From the disk when recent, else from the server.
    pub async fn load(client: &Client, cache: &Path) -> Result<Discovery> {
        let kept = Self::kept(client, cache);
        match kept {
            Some(found) if now().saturating_sub(found.fetched) < TTL.as_secs() => Ok(found),
            kept => match (Self::fetch(client, cache).await, kept) {
                // What was known yesterday is better than nothing for what needs no server.
                (Err(error), Some(found)) if crate::errors::is_unreachable(&error) => Ok(found),
                (fetched, _) => fetched,
            },
        }
    }

    /// Whether it came from the server in this run.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    fn file(client: &Client, cache: &Path) -> PathBuf {
        cache_of(client, cache).join("discovery.json")
    }

    fn kept(client: &Client, cache: &Path) -> Option<Discovery> {
        let found: Discovery = serde_json::from_slice(&std::fs::read(Self::file(client, cache)).ok()?).ok()?;
        (!found.kinds.is_empty()).then_some(found)
    }

    /// Asks the server and rewrites the cache.
    pub async fn fetch(client: &Client, cache: &Path) -> Result<Discovery> {
        let mut discovery = Discovery { fetched: now(), fresh: true, ..Discovery::default() };
        for root in ["/api", "/apis"] {
            let bytes = match client.bytes(Method::GET, root, AGGREGATED, None).await {
                Ok(bytes) => bytes,
                // A server without groups, or one that lists nothing here to this user.
                Err(error) if crate::errors::is_not_found(&error) && root == "/apis" => continue,
                Err(error) => return Err(error),
            };
            let answer: Value = serde_json::from_slice(&bytes).map_err(|_| anyhow!("the server's answer to {root} is no discovery document"))?;
            if answer["kind"] == "APIGroupDiscoveryList" {
                discovery.add_aggregated(&answer);
            } else {
                discovery.add_legacy(client, root, &answer).await?;
            }
        }
        keep(&Self::file(client, cache), &discovery);
        Ok(discovery)
    }

    fn add_aggregated(&mut self, answer: &Value) {
        for group in items(&answer["items"]) {
            let name = text(&group["metadata"]["name"]);
            for version in items(&group["versions"]) {
                let version_name = text(&version["version"]);
                self.add_version(&name, &version_name);
                for resource in items(&version["resources"]) {
                    let response = &resource["responseKind"];
                    let or = |value: &Value, default: &str| if text(value).is_empty() { default.to_owned() } else { text(value) };
                    if text(&response["kind"]).is_empty() {
                        continue;
                    }
                    self.kinds.push(Rc::new(Kind {
                        group: or(&response["group"], &name),
                        version: or(&response["version"], &version_name),
                        kind: text(&response["kind"]),
                        plural: text(&resource["resource"]),
                        singular: text(&resource["singularResource"]),
                        namespaced: resource["scope"] == "Namespaced",
                        short_names: texts(&resource["shortNames"]),
                        categories: texts(&resource["categories"]),
                        verbs: texts(&resource["verbs"]),
                        subresources: items(&resource["subresources"]).iter().map(|s| text(&s["subresource"])).collect(),
                    }));
                }
            }
        }
    }

    async fn add_legacy(&mut self, client: &Client, root: &str, answer: &Value) -> Result<()> {
        let mut versions: Vec<(String, String)> = Vec::new();
        if root == "/api" {
            versions.extend(texts(&answer["versions"]).into_iter().map(|v| (String::new(), v)));
        }
        for group in items(&answer["groups"]) {
            let preferred = text(&group["preferredVersion"]["version"]);
            let mut names: Vec<String> = items(&group["versions"]).iter().map(|v| text(&v["version"])).collect();
            names.sort_by_key(|v| *v != preferred);
            versions.extend(names.into_iter().map(|v| (text(&group["name"]), v)));
        }
        for (group, version) in versions {
            self.add_version(&group, &version);
            let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            // A group whose server is down must not hide the others.
            let Ok(list) = client.get(&path).await else { continue };
            let resources = items(&list["resources"]);
            for resource in resources.iter().filter(|r| !text(&r["name"]).contains('/')) {
                let plural = text(&resource["name"]);
                let prefix = format!("{plural}/");
                let singular = text(&resource["singularName"]);
                self.kinds.push(Rc::new(Kind {
                    group: group.clone(),
                    version: version.clone(),
                    kind: text(&resource["kind"]),
                    singular: if singular.is_empty() { text(&resource["kind"]).to_lowercase() } else { singular },
                    namespaced: resource["namespaced"] == true,
                    short_names: texts(&resource["shortNames"]),
                    categories: texts(&resource["categories"]),
                    verbs: texts(&resource["verbs"]),
                    subresources: resources.iter().filter_map(|r| text(&r["name"]).strip_prefix(&prefix).map(ToOwned::to_owned)).collect(),
                    plural,
                }));
            }
        }
        Ok(())
    }

    fn add_version(&mut self, group: &str, version: &str) {
        self.versions.push(if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") });
    }

    /// The kind a word names: plural, singular, short name or kind, perhaps with `.group` or `.version.group`.
    pub fn find(&self, word: &str) -> Option<Rc<Kind>> {
        let lower = word.to_lowercase();
        let named = |kind: &&Rc<Kind>, name: &str| kind.plural == name || kind.singular == name || kind.kind.to_lowercase() == name;
        if let Some(kind) = self.kinds.iter().find(|k| named(k, &lower)) {
            return Some(kind.clone());
        }
        if let Some(kind) = self.kinds.iter().find(|k| k.short_names.contains(&lower)) {
            return Some(kind.clone());
        }
        let (name, rest) = lower.split_once('.')?;
        let short = |kind: &Rc<Kind>| kind.short_names.iter().any(|s| s == name);
        let matching = |group: &str, version: Option<&str>| {
            let found =
                self.kinds.iter().find(|k| (named(k, name) || short(k)) && group_matches(&k.group, group) && version.is_none_or(|v| k.version == v));
            found.cloned()
        };
        if let Some((version, group)) = rest.split_once('.')
            && let Some(kind) = matching(group, Some(version))
        {
            return Some(kind);
        }
        matching(rest, None).or_else(|| self.kinds.iter().find(|k| named(k, name) && k.group.is_empty() && k.version == rest).cloned())
    }

    /// The kinds of a category such as `all`, in the preferred version of each group.
    pub fn category(&self, word: &str) -> Vec<Rc<Kind>> {
        let mut found: Vec<Rc<Kind>> = Vec::new();
        for kind in &self.kinds {
            if kind.categories.iter().any(|c| c == word) && !found.iter().any(|f| f.group == kind.group && f.plural == kind.plural) {
                found.push(kind.clone());
            }
        }
        found
    }

    /// Every kind that can be listed, but for events, which only tell of the others; kinds outside of namespaces when asked for.
    pub fn everything(&self, cluster_scoped: bool) -> Vec<Rc<Kind>> {
        let mut found: Vec<Rc<Kind>> = Vec::new();
        let wanted = |k: &&Rc<Kind>| (k.namespaced || cluster_scoped) && k.kind != "Event" && k.verbs.iter().any(|v| v == "list");
        for kind in self.kinds.iter().filter(wanted) {
            if !found.iter().any(|f| f.group == kind.group && f.plural == kind.plural) {
                found.push(kind.clone());
            }
        }
        found
    }

    /// The kind an object says it is.
    pub fn find_exact(&self, api_version: &str, kind: &str) -> Option<Rc<Kind>> {
        self.kinds.iter().find(|k| k.kind == kind && k.api_version() == api_version).cloned()
    }

    /// The kind of an owner reference, whatever its version.
    pub fn find_group_kind(&self, group: &str, kind: &str) -> Option<Rc<Kind>> {
        self.kinds.iter().find(|k| k.kind == kind && k.group == group).cloned()
    }

    /// Words close to a mistyped one.
    pub fn suggestions(&self, word: &str) -> Vec<String> {
        let words = self.kinds.iter().flat_map(|k| [k.plural.clone(), k.singular.clone()].into_iter().chain(k.short_names.iter().cloned()));
        crate::suggest::close(word, words, 1)
    }
}

/// A group may be given up to its first dots: `deployments.apps`, `ingresses.networking`.
fn group_matches(group: &str, given: &str) -> bool {
    group == given || group.strip_prefix(given).is_some_and(|rest| rest.starts_with('.') && !given.is_empty())
}

/// kubectl's words for a kind the server does not have.
pub fn unknown(word: &str) -> anyhow::Error {
    let lower = word.to_lowercase();
    match lower.split_once('.') {
        Some((name, _)) => anyhow!("the server doesn't have a resource type {name:?}"),
        None => anyhow!("the server doesn't have a resource type {lower:?}"),
    }
}

/// Fails unless the kind offers what a command needs.
pub fn require(kind: &Kind, verb: &str) -> Result<()> {
    if !kind.can(verb) {
        bail!("the server doesn't allow this method on the requested resource ({} {})", verb, kind.resource());
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Discovery {
        let mut deployments = Kind::built_in("apps", "v1", "Deployment", "deployments", true);
        deployments.short_names = vec!["deploy".into()];
        deployments.categories = vec!["all".into()];
        let mut pods = Kind::built_in("", "v1", "Pod", "pods", true);
        pods.short_names = vec!["po".into()];
        pods.categories = vec!["all".into()];
        let ingresses = Kind::built_in("networking.k8s.io", "v1", "Ingress", "ingresses", true);
        let events = Kind::built_in("", "v1", "Event", "events", true);
        let new_events = Kind::built_in("events.k8s.io", "v1", "Event", "events", true);
        Discovery { kinds: [pods, events, deployments, new_events, ingresses].map(Rc::new).into(), ..Discovery::default() }
    }

    #[test]
    fn a_kind_has_many_names() {
        for (word, resource) in [
            ("pods", "pods"),
            ("po", "pods"),
            ("Pod", "pods"),
            ("pod.v1", "pods"),
            ("deploy", "deployments.apps"),
            ("deployments.apps", "deployments.apps"),
            ("deployment.v1.apps", "deployments.apps"),
            ("deploy.apps", "deployments.apps"),
            ("events", "events"),
            ("events.events.k8s.io", "events.events.k8s.io"),
            ("ingress.networking.k8s.io", "ingresses.networking.k8s.io"),
            ("ing.networking", ""),
            ("foo", ""),
            ("pods.apps", ""),
        ] {
            assert_eq!(sample().find(word).map(|k| k.resource()).unwrap_or_default(), resource, "{word}");
        }
        assert_eq!(sample().category("all").len(), 2);
    }

    #[test]
    fn paths_follow_scope_and_group() {
        let found = sample();
        let deploy = found.find("deploy").unwrap();
        assert_eq!(deploy.object(Some("a"), "x y"), "/apis/apps/v1/namespaces/a/deployments/x%20y");
        assert_eq!(deploy.collection(None), "/apis/apps/v1/deployments");
        assert_eq!(found.find("po").unwrap().collection(Some("a")), "/api/v1/namespaces/a/pods");
        assert_eq!(deploy.printed(), "deployment.apps");
    }
}

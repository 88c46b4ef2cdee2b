//! Every kind that can be stored lives the whole life of an API object: what Kubernetes' conformance tests ask of each API.
//!
//! Owns that life. What a kind means is tested elsewhere; here nothing may depend on it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tests::client::{Connection, Target};
use tests::wait::eventually_async;
use tests::{Cluster, Start};

use crate::Own;

pub const TESTS: &[Own] = &[("kinds::each_lives_the_life_of_an_api_object", each_lives)];

const NAMESPACE: &str = "kinds";
/// Lives that go on at a time.
const TOGETHER: usize = 6;
/// Attempts of an update that controllers may get ahead of.
const ATTEMPTS: usize = 20;
/// Kinds whose status is written without metadata.
const STATUS_ALONE: [&str; 3] = ["CustomResourceDefinition", "ResourceClaim", "ValidatingAdmissionPolicy"];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const YAML: &str = "application/yaml";

/// A kind as discovery shows it.
struct Kind {
    /// Of the collection that the fixture's object goes into.
    path: String,
    verbs: BTreeSet<String>,
    subresources: BTreeSet<String>,
}

fn each_lives() {
    let c = Cluster::new(Start { simulated_nodes: Some(1), ..Start::default() });
    let target = Target::of(&c.data_dir()).expect("a running cluster has a kubeconfig");
    let enter = c.machine.entrance();
    let lives = std::thread::spawn(move || {
        enter();
        tokio::runtime::Runtime::new().expect("a runtime").block_on(run(target))
    });
    lives.join().expect("no panic").unwrap_or_else(|error| panic!("{error}"));
}

async fn run(target: Target) -> Result<()> {
    let connection = target.connect().await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    expect(&connection, 201, "POST", "/api/v1/namespaces", &namespace).await?;
    let mut kinds = discover(&connection).await?;
    let mut lives = Vec::new();
    for object in fixtures()? {
        let id = (text(&object, "/apiVersion").to_owned(), text(&object, "/kind").to_owned());
        let kind = kinds.remove(&id).with_context(|| format!("{id:?} is no stored kind, or has two fixtures"))?;
        lives.push((kind, object));
    }
    ensure!(kinds.is_empty(), "tests/fixtures/kinds.yaml has nothing for {:?}", kinds.keys());
    let lives = lives.into_iter().map(|(kind, object)| {
        let connection = connection.clone();
        let name = format!("{} {}", text(&object, "/apiVersion"), text(&object, "/kind"));
        async move { Life { connection, kind, object }.lead().await.err().map(|error| format!("{name}: {error}")) }
    });
    let failures: Vec<String> = futures::stream::iter(lives).buffer_unordered(TOGETHER).filter_map(std::future::ready).collect().await;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

fn fixtures() -> Result<Vec<Value>> {
    let yaml = std::fs::read_to_string(tests::source("fixtures/kinds.yaml"))?;
    let request = rcgen::CertificateParams::new(vec!["life".to_owned()])?.serialize_request(&rcgen::KeyPair::generate()?)?.pem()?;
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request);
    serde_yaml::Deserializer::from_str(&yaml.replace("REQUEST", &request)).map(|document| Ok(serde::Deserialize::deserialize(document)?)).collect()
}

/// All kinds that can be created and listed, by apiVersion and kind.
async fn discover(connection: &Connection) -> Result<BTreeMap<(String, String), Kind>> {
    let mut kinds = BTreeMap::new();
    let versions: Vec<Value> = {
        let groups = expect(connection, 200, "GET", "/apis", &Value::Null).await?;
        let of = |group: &Value| group["versions"].as_array().cloned().unwrap_or_default();
        groups["groups"].as_array().context("no groups")?.iter().flat_map(of).collect()
    };
    let named = versions.iter().map(|v| text(v, "/groupVersion").to_owned());
    for version in named.chain(["v1".to_owned()]) {
        let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        let list = expect(connection, 200, "GET", &root, &Value::Null).await?;
        let resources = list["resources"].as_array().context("no resources")?;
        for resource in resources {
            let name = text(resource, "/name");
            let verbs: BTreeSet<String> = serde_json::from_value(resource["verbs"].clone())?;
            if name.contains('/') || !verbs.contains("create") || !verbs.contains("list") {
                continue;
            }
            let below = |other: &Value| text(other, "/name").strip_prefix(name)?.strip_prefix('/').map(str::to_owned);
            let path = match resource["namespaced"].as_bool() {
                Some(true) => format!("{root}/namespaces/{NAMESPACE}/{name}"),
                _ => format!("{root}/{name}"),
            };
            let subresources = resources.iter().filter_map(below).collect();
            kinds.insert((version.clone(), text(resource, "/kind").to_owned()), Kind { path, verbs, subresources });
        }
    }
    Ok(kinds)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

async fn raw(connection: &Connection, method: &str, path: &str, body: Bytes) -> Result<(u16, Bytes)> {
    let response = connection.clone().send(method, path, body).await?;
    Ok((response.status().as_u16(), response.into_body().collect().await?.to_bytes()))
}

async fn call(connection: &Connection, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let (status, answer) = raw(connection, method, path, body).await?;
    Ok((status, serde_json::from_slice(&answer)?))
}

async fn expect(connection: &Connection, wanted: u16, method: &str, path: &str, body: &Value) -> Result<Value> {
    let (status, answer) = call(connection, method, path, body).await?;
    ensure!(status == wanted, "{method} {path} {body}: {status} and not {wanted}: {answer}");
    Ok(answer)
}

struct Life {
    connection: Connection,
    kind: Kind,
    object: Value,
}

impl Life {
    async fn lead(mut self) -> Result<()> {
        let (version, kind) = (text(&self.object, "/apiVersion"), text(&self.object, "/kind"));
        // As much of the group as tells kinds apart: a label has 63 bytes.
        let label =
            format!("{kind}.{}.{}", version.split('.').next().unwrap_or_default().replace('/', "-"), version.rsplit('/').next().unwrap_or_default());
        self.object["metadata"]["labels"] = json!({"life": label});
        let selected = format!("{}?labelSelector=life%3D{label}", self.kind.path);
        self.refuse().await?;
        let created = expect(&self.connection, 201, "POST", &self.kind.path, &self.object).await?;
        for pointer in ["/metadata/uid", "/metadata/resourceVersion", "/metadata/creationTimestamp", "/metadata/managedFields/0/operation"] {
            ensure!(!text(&created, pointer).is_empty(), "{pointer} is missing from {created}");
        }
        expect(&self.connection, 409, "POST", &self.kind.path, &self.object).await?;
        let watched = format!("{selected}&watch=1&resourceVersion={}", text(&created, "/metadata/resourceVersion"));
        let mut watch = self.connection.clone().open("GET", &watched, Bytes::new()).await?.into_body();
        self.read(&created, &selected).await?;
        self.patch().await?;
        self.update().await?;
        self.parts().await?;
        self.round_trip(PROTOBUF).await?;
        self.round_trip(YAML).await?;
        // Some kinds wait for their deletion, which is answered 202.
        let (status, answer) = call(&self.connection, "DELETE", &self.path(), &Value::Null).await?;
        ensure!(matches!(status, 200 | 202), "DELETE {}: {status} {answer}", self.path());
        self.gone(&selected).await;
        let events = events_until_deleted(&mut watch).await?;
        ensure!(events.iter().any(|event| event == "MODIFIED"), "the watch saw {events:?}");
        if self.kind.verbs.contains("deletecollection") {
            expect(&self.connection, 201, "POST", &self.kind.path, &self.object).await?;
            expect(&self.connection, 200, "DELETE", &selected, &Value::Null).await?;
            self.gone(&selected).await;
        }
        Ok(())
    }

    fn path(&self) -> String {
        format!("{}/{}", self.kind.path, text(&self.object, "/metadata/name"))
    }

    /// What must leave nothing behind: a dry run and a field that does not exist.
    async fn refuse(&self) -> Result<()> {
        expect(&self.connection, 201, "POST", &format!("{}?dryRun=All", self.kind.path), &self.object).await?;
        let mut strange = self.object.clone();
        strange["nonsense"] = true.into();
        let refusal = expect(&self.connection, 400, "POST", &format!("{}?fieldValidation=Strict", self.kind.path), &strange).await?;
        ensure!(text(&refusal, "/message").contains("strict decoding error: unknown field \"nonsense\""), "{refusal}");
        expect(&self.connection, 404, "GET", &self.path(), &Value::Null).await.map(drop)
    }

    async fn read(&self, created: &Value, selected: &str) -> Result<()> {
        let got = expect(&self.connection, 200, "GET", &self.path(), &Value::Null).await?;
        ensure!(got["metadata"]["uid"] == created["metadata"]["uid"], "{got} is not {created}");
        for (accept, kind) in [
            ("application/json", format!("{}List", text(&self.object, "/kind"))),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", "Table".to_owned()),
            ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "PartialObjectMetadataList".to_owned()),
        ] {
            let list = expect(&self.connection.accept(accept), 200, "GET", selected, &Value::Null).await?;
            ensure!(text(&list, "/kind") == kind, "{list} is no {kind}");
            let rows = list["items"].as_array().or(list["rows"].as_array()).context("no items")?;
            ensure!(rows.len() == 1, "{selected} shows {list}");
        }
        Ok(())
    }

    async fn patch(&self) -> Result<()> {
        let annotation = |value: &str| json!({"metadata": {"annotations": {"patched": value}}});
        for (media, body) in [
            ("application/merge-patch+json", annotation("merge")),
            ("application/strategic-merge-patch+json", annotation("strategic")),
            ("application/json-patch+json", json!([{"op": "replace", "path": "/metadata/annotations/patched", "value": "json"}])),
        ] {
            let patched = expect(&self.connection.content(media), 200, "PATCH", &self.path(), &body).await?;
            ensure!(media.contains(text(&patched, "/metadata/annotations/patched")), "{media} made {patched}");
        }
        let (version, kind, name) = (&self.object["apiVersion"], &self.object["kind"], &self.object["metadata"]["name"]);
        let applied = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "annotations": {"applied": "yes"}}});
        let applier = self.connection.content("application/apply-patch+yaml");
        let applied = expect(&applier, 200, "PATCH", &format!("{}?fieldManager=applier", self.path()), &applied).await?;
        let entries = applied["metadata"]["managedFields"].as_array().context("nobody manages it")?;
        ensure!(entries.iter().any(|e| text(e, "/manager") == "applier" && text(e, "/operation") == "Apply"), "{entries:?}");
        Ok(())
    }

    /// Reads the object and writes what `change` makes of it, until nobody else is faster.
    async fn write(&self, path: &str, change: impl Fn(&mut Value)) -> Result<Value> {
        let mut last = Value::Null;
        for _ in 0..ATTEMPTS {
            let mut object = expect(&self.connection, 200, "GET", &self.path(), &Value::Null).await?;
            change(&mut object);
            match call(&self.connection, "PUT", path, &object).await? {
                (200, written) => return Ok(written),
                (409, conflict) => last = conflict,
                (status, answer) => anyhow::bail!("PUT {path} {object}: {status} {answer}"),
            }
        }
        anyhow::bail!("PUT {path}: {last}")
    }

    async fn update(&self) -> Result<()> {
        let stale = expect(&self.connection, 200, "GET", &self.path(), &Value::Null).await?;
        let updated = self.write(&self.path(), |object| object["metadata"]["annotations"]["updated"] = "yes".into()).await?;
        ensure!(text(&updated, "/metadata/annotations/updated") == "yes", "{updated}");
        let conflict = expect(&self.connection, 409, "PUT", &self.path(), &stale).await?;
        ensure!(text(&conflict, "/reason") == "Conflict", "{conflict}");
        Ok(())
    }

    async fn parts(&self) -> Result<()> {
        if self.kind.subresources.contains("status") {
            let path = format!("{}/status", self.path());
            let got = expect(&self.connection, 200, "GET", &path, &Value::Null).await?;
            ensure!(got["kind"] == self.object["kind"], "{got}");
            let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}});
            let merge = self.connection.content("application/merge-patch+json");
            let patched = expect(&merge, 200, "PATCH", &path, &patch).await?;
            let annotated = text(&patched, "/metadata/annotations/patchedstatus") == "true";
            ensure!(annotated != STATUS_ALONE.contains(&text(&self.object, "/kind")), "{patched}");
            self.write(&path, |object| object["metadata"]["annotations"]["updatedstatus"] = "true".into()).await?;
        }
        if self.kind.subresources.contains("scale") {
            let path = format!("{}/scale", self.path());
            let scale = expect(&self.connection, 200, "GET", &path, &Value::Null).await?;
            ensure!(text(&scale, "/kind") == "Scale", "{scale}");
            expect(&self.connection, 200, "PUT", &path, &scale).await?;
        }
        Ok(())
    }

    /// Writing back what was read in another encoding changes nothing.
    async fn round_trip(&self, media: &'static str) -> Result<()> {
        let other = self.connection.accept(media).content(media);
        for _ in 0..ATTEMPTS {
            let (status, bytes) = raw(&other, "GET", &self.path(), Bytes::new()).await?;
            ensure!(status == 200, "GET as {media}: {status}");
            ensure!(media != PROTOBUF || bytes.starts_with(b"k8s\0"), "it is not in protobuf");
            let before = expect(&self.connection, 200, "GET", &self.path(), &Value::Null).await?;
            let (status, answer) = raw(&other.accept("application/json"), "PUT", &self.path(), bytes).await?;
            let after: Value = serde_json::from_slice(&answer)?;
            if status == 409 {
                continue;
            }
            ensure!(status == 200, "PUT as {media}: {status} {after}");
            ensure!(after == before, "through {media} {before} became {after}");
            return Ok(());
        }
        anyhow::bail!("others were always faster")
    }

    async fn gone(&self, selected: &str) {
        eventually_async("it is gone", || async {
            let list = expect(&self.connection, 200, "GET", selected, &Value::Null).await?;
            let left = list["items"].as_array().context("no items")?;
            ensure!(left.is_empty(), "{list}");
            Ok(())
        })
        .await;
    }
}

/// The types of events up to the deletion.
async fn events_until_deleted(watch: &mut hyper::body::Incoming) -> Result<Vec<String>> {
    let (mut buffer, mut types) = (Vec::new(), Vec::new());
    loop {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(30), watch.frame()).await.context("no deletion was seen")?;
        buffer.extend_from_slice(frame.context("the watch ended")??.data_ref().context("no data")?);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let event: Value = serde_json::from_slice(&buffer.drain(..=end).collect::<Vec<_>>())?;
            types.push(text(&event, "/type").to_owned());
            if types.last().is_some_and(|t| t == "DELETED") {
                return Ok(types);
            }
        }
    }
}

use super::*;
use proptest::prelude::*;
use serde_json::json;

/// A field of bytes.
fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    assert!(value.len() < 128 && number < 16);
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
}

/// A field of a small number.
fn varint(number: u8, value: u8) -> Vec<u8> {
    assert!(value < 128 && number < 16);
    vec![number << 3, value]
}

fn object(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC, &bytes(1, &meta), &bytes(2, raw), &bytes(3, b""), &bytes(4, b"")].concat()
}

fn read(body: &[u8]) -> Value {
    serde_json::from_slice(&to_json(body).unwrap()).unwrap()
}

#[test]
fn a_config_map_as_kubectl_sends_it_is_read() {
    // name, generateName, namespace, selfLink, uid, resourceVersion, generation, creationTimestamp; all but the name are zero.
    let meta = [bytes(1, b"a"), bytes(2, b""), bytes(3, b""), bytes(4, b""), bytes(5, b""), bytes(6, b""), varint(7, 0), bytes(8, b"")].concat();
    let entry = [bytes(1, b"k"), bytes(2, b"v")].concat();
    let raw = [bytes(1, &meta), bytes(2, &entry), bytes(2, &[bytes(1, b"l"), bytes(2, b"")].concat())].concat();
    let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v", "l": ""}});
    assert_eq!(read(&object("v1", "ConfigMap", &raw)), expected);
}

#[test]
fn inlined_messages_times_quantities_and_either_types_become_their_json() {
    let quantity = bytes(1, b"100m");
    let requests = bytes(2, &[bytes(1, b"cpu"), bytes(2, &quantity)].concat());
    let get = bytes(2, &bytes(2, &[varint(1, 1), varint(2, 0), bytes(3, b"http")].concat()));
    let probe = [bytes(1, &get), varint(2, 5)].concat();
    let container = [bytes(1, b"c"), bytes(8, &requests), bytes(10, &probe)].concat();
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
    let spec = [bytes(1, &volume), bytes(2, &container)].concat();
    let deleted = bytes(9, &varint(1, 60));
    let pod = read(&object("v1", "Pod", &[bytes(1, &deleted), bytes(2, &spec)].concat()));
    assert_eq!(pod["metadata"], json!({"deletionTimestamp": "1970-01-01T00:01:00Z"}));
    assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"], json!({"cpu": "100m"}));
    assert_eq!(container["livenessProbe"], json!({"httpGet": {"port": "http"}, "initialDelaySeconds": 5}));
}

#[test]
fn a_pointers_zero_is_kept_and_negative_numbers_are_negative() {
    let minus = [vec![3 << 3], vec![0xff; 9], vec![1]].concat();
    let spec = [varint(2, 0), minus].concat();
    let scale = read(&object("apps/v1", "Deployment", &bytes(2, &varint(1, 0))));
    assert_eq!(scale["spec"], json!({"replicas": 0}));
    let hpa = read(&object("autoscaling/v1", "HorizontalPodAutoscaler", &bytes(2, &spec)));
    assert_eq!(hpa["spec"], json!({"minReplicas": 0, "maxReplicas": -1}));
}

#[test]
fn options_are_the_same_in_every_group_and_secrets_are_base64() {
    let options = read(&object("policy/v1", "DeleteOptions", &varint(1, 30)));
    assert_eq!(options["gracePeriodSeconds"], 30);
    let secret = read(&object("v1", "Secret", &bytes(2, &[bytes(1, b"k"), bytes(2, &[0, 255])].concat())));
    assert_eq!(secret["data"], json!({"k": "AP8="}));
    let extra = [bytes(1, b"scopes"), bytes(2, &[bytes(1, b"x"), bytes(1, b"y")].concat())].concat();
    let review = read(&object("authorization.k8s.io/v1", "SubjectAccessReview", &bytes(2, &bytes(5, &extra))));
    assert_eq!(review["spec"]["extra"], json!({"scopes": ["x", "y"]}));
}

#[test]
fn bodies_that_are_not_objects_of_a_known_kind_are_refused() {
    assert_eq!(to_json(b"{}").unwrap_err().code(), 400);
    assert_eq!(to_json(&object("v1", "Nonsense", b"")).unwrap_err().code(), 415);
    assert_eq!(to_json(&object("v1", "Pod", &[0x0a, 0x7f])).unwrap_err().code(), 400);
    assert_eq!(to_json(&object("v1", "Pod", &varint(1, 1))).unwrap_err().code(), 400);
}

#[test]
fn every_message_that_is_named_is_in_the_table() {
    fn messages<'a>(kind: &'a Type, found: &mut Vec<&'a str>) {
        match kind {
            Type::Message(name) => found.push(name),
            Type::List(inner) | Type::Map(inner) => messages(inner, found),
            _ => {}
        }
    }
    let mut found = Vec::new();
    SCHEMA.values().flat_map(BTreeMap::values).for_each(|f| messages(&f.kind, &mut found));
    assert!(found.len() > 500);
    for name in found {
        assert!(SCHEMA.contains_key(name), "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(raw in proptest::collection::vec(any::<u8>(), 0..127)) {
        let _ = to_json(&object("v1", "Pod", &raw));
        let _ = to_json(&[MAGIC, &raw].concat());
    }
}

/// Group, version, kind, schema, and the schemas of its group version.
type Kind = (String, String, String, String, std::sync::Arc<Map<String, Value>>);

/// Makes an object with every field set, as its schema says; `pick` leaves fields out.
struct Sampler<'a> {
    schemas: &'a Map<String, Value>,
    pick: &'a mut dyn FnMut() -> bool,
    open: Vec<String>,
}

impl Sampler<'_> {
    fn named(&mut self, name: &str) -> Option<Value> {
        let last = name.rsplit('.').next().unwrap();
        match last {
            "Time" => return Some("2024-06-01T12:00:00Z".into()),
            "MicroTime" => return Some("2024-06-01T12:00:00.123456Z".into()),
            "Quantity" => return Some("1500m".into()),
            "IntOrString" => return Some(if (self.pick)() { 7.into() } else { "http".into() }),
            "RawExtension" | "FieldsV1" => return Some(json!({"f:x": {"a": [1, "b", null]}})),
            "JSON" => return Some(json!(["any", {"thing": 1}])),
            "JSONSchemaPropsOrBool" => return if (self.pick)() { self.named(&name.replace("OrBool", "")) } else { Some(true.into()) },
            "JSONSchemaPropsOrArray" => return self.named(&name.replace("OrArray", "")).map(|s| if (self.pick)() { json!([s]) } else { s }),
            "JSONSchemaPropsOrStringArray" => return Some(json!(["a", "b"])),
            _ => {}
        }
        // Schemas of schemas go on for ever.
        if self.open.iter().filter(|n| *n == name).count() > 1 {
            return None;
        }
        self.open.push(name.to_owned());
        let value = self.value(&self.schemas[name].clone());
        self.open.pop();
        value
    }

    fn value(&mut self, schema: &Value) -> Option<Value> {
        if let Some(reference) = schema["allOf"][0]["$ref"].as_str().or(schema["$ref"].as_str()) {
            return self.named(reference.rsplit('/').next().unwrap());
        }
        Some(match (schema["type"].as_str().unwrap_or_default(), schema["format"].as_str()) {
            ("string", Some("byte")) => "AP8=".into(),
            ("string", _) => "text \u{e9}".into(),
            ("boolean", _) => true.into(),
            ("integer", _) => {
                if (self.pick)() {
                    (-3).into()
                } else {
                    300.into()
                }
            }
            ("number", _) => 1.5.into(),
            ("array", _) => {
                let item = self.value(&schema["items"])?;
                json!([item, item])
            }
            ("object", _) if schema.get("additionalProperties").is_some() => json!({"key": self.value(&schema["additionalProperties"])?}),
            ("object", _) => {
                let Some(fields) = schema["properties"].as_object() else { return Some(json!({})) };
                let mut object = Map::new();
                for (name, field) in fields {
                    if (self.pick)()
                        && let Some(value) = self.value(field)
                    {
                        object.insert(name.clone(), value);
                    }
                }
                // An empty struct and none are the same to Go where it is no pointer.
                if object.is_empty() {
                    return None;
                }
                object.into()
            }
            (other, _) => panic!("{other}: {schema}"),
        })
    }
}

/// Fields of gates that are off in v1.36, whose numbers are not published with it.
const UNKNOWN: [&str; 6] = ["shardInfo", "nodeAllocatableResourceMappings", "ints", "bools", "strings", "versions"];

fn without_unknown(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !UNKNOWN.contains(&name.as_str()));
            // Objects in objects lose their type, as upstream's do.
            for item in map.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
                item.as_object_mut().unwrap().retain(|name, _| name != "apiVersion" && name != "kind");
            }
            map.values_mut().for_each(without_unknown);
        }
        Value::Array(items) => items.iter_mut().for_each(without_unknown),
        _ => {}
    }
}

/// Everything that a kind can say, as far as `pick` lets it.
fn sample(kind: &Kind, pick: &mut dyn FnMut() -> bool) -> Value {
    let (group, version, name, schema, schemas) = kind;
    let mut value = Sampler { schemas, pick, open: Vec::new() }.named(schema).unwrap_or_else(|| json!({}));
    value["apiVersion"] = if group.is_empty() { version.clone().into() } else { format!("{group}/{version}").into() };
    value["kind"] = name.clone().into();
    if name.ends_with("List") {
        let metadata = json!({"resourceVersion": "7", "continue": "abc", "remainingItemCount": 3});
        value["metadata"] = metadata;
    }
    without_unknown(&mut value);
    value
}

/// What an object is after both ways.
fn there_and_back(value: &Value) -> Option<Value> {
    let body = from_json(value.to_string().as_bytes()).unwrap()?;
    let mut read: Value = if value["kind"].as_str().unwrap().ends_with("List") { read_list(&body) } else { read(&body) };
    // Items of a list say no type of their own in protobuf.
    read["apiVersion"] = value["apiVersion"].clone();
    Some(read)
}

/// Reads a list, as clients do; the server itself never gets one.
fn read_list(body: &[u8]) -> Value {
    let mut outer = Reader(body.strip_prefix(MAGIC).unwrap());
    let (mut list, mut item_name) = (json!({"items": []}), String::new());
    while let Some((number, wire)) = outer.field().unwrap() {
        let Wire::Bytes(bytes) = wire else { panic!() };
        if number == 1 {
            let meta = &mut Reader(bytes);
            let mut texts = Vec::new();
            while let Some((_, Wire::Bytes(text))) = meta.field().unwrap() {
                texts.push(text_of(text).unwrap());
            }
            list["kind"] = texts[1].clone().into();
            item_name = message_name(&texts[0], texts[1].strip_suffix("List").unwrap());
        } else if number == 2 {
            let raw = &mut Reader(bytes);
            while let Some((number, Wire::Bytes(bytes))) = raw.field().unwrap() {
                let name = if number == 1 { "meta/v1.ListMeta" } else { item_name.as_str() };
                let mut object = Map::new();
                read_message(&SCHEMA[name], bytes, &mut object, 0).unwrap();
                match number {
                    1 => list["metadata"] = object.into(),
                    _ => list["items"].as_array_mut().unwrap().push(object.into()),
                }
            }
        }
    }
    list
}

fn without_types_of_items(mut value: Value) -> Value {
    if value["kind"].as_str().unwrap().ends_with("List") {
        for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            item.as_object_mut().unwrap().retain(|name, _| name != "apiVersion" && name != "kind");
        }
    }
    value
}

/// Where two values differ first.
fn difference(a: &Value, b: &Value, at: &str) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names: HashSet<&String> = a.keys().chain(b.keys()).collect();
            names.into_iter().find_map(|n| difference(a.get(n).unwrap_or(&Value::Null), b.get(n).unwrap_or(&Value::Null), &format!("{at}.{n}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(a, b, &format!("{at}[{i}]")))
        }
        _ => (a != b).then(|| format!("{at}: {a} became {b}")),
    }
}

#[test]
fn every_field_of_every_kind_survives_both_ways() {
    let kinds = crate::api::openapi::schemas_of_kinds();
    assert!(kinds.len() > 100, "{}", kinds.len());
    let mut failures = Vec::new();
    for kind in kinds.iter().filter(|k| k.2 != "APIResourceList" && k.0 != "metrics.k8s.io") {
        let value = without_types_of_items(sample(kind, &mut || true));
        match there_and_back(&value) {
            None => failures.push(format!("{}/{} {} has no protobuf form", kind.0, kind.1, kind.2)),
            Some(read) => failures.extend(difference(&value, &read, &kind.2)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_of_a_kind_is_set_survives_both_ways(seed in any::<u64>(), at in any::<prop::sample::Index>()) {
        static KINDS: LazyLock<Vec<Kind>> =
            LazyLock::new(|| crate::api::openapi::schemas_of_kinds().into_iter().filter(|k| k.2 != "APIResourceList" && k.0 != "metrics.k8s.io").collect());
        let mut state = seed | 1;
        let mut pick = || {
            // xorshift: the choices depend on the seed alone.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state & 1 == 0
        };
        let mut value = without_types_of_items(sample(at.get(&KINDS), &mut pick));
        if value["kind"].as_str().unwrap().ends_with("List") && value.get("items").is_none() {
            value["items"] = json!([]);
        }
        let read = there_and_back(&value).unwrap();
        prop_assert_eq!(difference(&value, &read, ""), None);
    }
}

#[test]
fn no_message_is_in_the_table_twice() {
    let mut seen = HashSet::new();
    for line in include_str!("schema.txt").lines().filter(|l| !l.starts_with([' ', '#'])) {
        assert!(seen.insert(line), "{line}");
    }
}

#[test]
fn a_watch_event_is_a_frame_with_a_body_of_its_own() {
    let frame = watch_frame(br#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}}"#).unwrap();
    let (length, event) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
    let mut reader = Reader(event);
    let Some((1, Wire::Bytes(kind))) = reader.field().unwrap() else { panic!() };
    assert_eq!(kind, b"ADDED");
    let Some((2, Wire::Bytes(extension))) = reader.field().unwrap() else { panic!() };
    let Some((1, Wire::Bytes(body))) = Reader(extension).field().unwrap() else { panic!() };
    assert_eq!(read(body), json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}));
}

#[test]
fn only_kubernetes_own_kinds_are_spoken_of() {
    assert!(speaks("apps", "v1", "Deployment") && speaks("", "v1", "Pod") && speaks("rbac.authorization.k8s.io", "v1", "Role"));
    assert!(!speaks("apps.example.com", "v1", "Deployment") && !speaks_version("example.com", "v1") && !speaks("apps", "v1", "Nonsense"));
}

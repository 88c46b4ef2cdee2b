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
    SCHEMA.values().flat_map(HashMap::values).for_each(|f| messages(&f.kind, &mut found));
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

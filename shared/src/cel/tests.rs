//! Tables of expressions and what they come to.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::*;

fn env() -> Env {
    let spec = Type::object("Spec", [("replicas", Type::Int), ("name", Type::String), ("tags", Type::list(Type::String))]);
    let typed = Type::object("Thing", [("spec", spec), ("labels", Type::map(Type::String, Type::String)), ("at", Type::Timestamp)]);
    Env::new().variable("object", Type::Dyn).variable("typed", typed).variable("x", Type::Int).variable("a.b", Type::String)
}

fn bindings() -> Bindings {
    let object = json!({
        "metadata": {"name": "web", "labels": {"app": "web", "tier": "front"}},
        "spec": {"replicas": 3, "containers": [{"name": "a", "image": "r/a:1"}, {"name": "b", "image": "q/b:2"}], "my-field": 1}
    });
    let typed = json!({"spec": {"replicas": 3, "name": "n", "tags": ["t"]}, "labels": {"k": "v"}, "at": "2024-02-03T04:05:06Z"});
    let Some(of) = env().variables.get("typed").cloned() else { panic!("declared above") };
    Bindings::new()
        .with("object", Value::from_json(&object))
        .with("typed", Value::from_typed_json(&typed, &of))
        .with("x", Value::Int(7))
        .with("a.b", Value::from("dotted"))
}

fn run(source: &str) -> Result<Value, String> {
    let program = compile(source, &env()).map_err(|e| e.to_string())?;
    program.eval(&bindings(), &Budget::per_call()).map_err(|e| e.to_string())
}

fn json_of(source: &str) -> Json {
    let value = run(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    value.to_json().unwrap_or_else(|e| panic!("{source}: {e}"))
}

/// Each comes to `true`.
fn all_true(sources: &[&str]) {
    for source in sources {
        assert_eq!(run(source), Ok(Value::Bool(true)), "{source}");
    }
}

#[test]
fn literals_are_read_as_cel_writes_them() {
    for (source, expected) in [
        ("1", json!(1)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("0x1F", json!(31)),
        ("7u", json!(7)),
        ("1.5e3", json!(1500.0)),
        (".5", json!(0.5)),
        ("-2.0", json!(-2.0)),
        (r#""a\n\x41\u00e9\101""#, json!("a\nA\u{e9}A")),
        (r#"r"a\n""#, json!("a\\n")),
        (r#"'''it's'''"#, json!("it's")),
        (
            r#""""two
lines""""#,
            json!("two\nlines"),
        ),
        (r#"b"abc""#, json!("YWJj")),
        ("null", json!(null)),
        ("[1, 2, 3,]", json!([1, 2, 3])),
        ("{'a': 1, 'b': 2}", json!({"a": 1, "b": 2})),
        ("true ? 'y' : 'n'", json!("y")),
        ("1 + 2 * 3 - 4 / 2 % 3", json!(5)),
        ("-(1 + 1)", json!(-2)),
        ("1 // a comment\n + 1", json!(2)),
    ] {
        assert_eq!(json_of(source), expected, "{source}");
    }
}

#[test]
fn operators_compare_and_combine() {
    all_true(&[
        "1 < 2 && 2u < 3u && 1 < 2u && 1.5 > 1 && 2 <= 2.0",
        "dyn(1) == dyn(1.0) && dyn(1u) == dyn(1)",
        "'a' < 'b' && b'a' < b'b' && false < true",
        "'a' + 'b' == 'ab' && [1] + [2] == [1, 2] && b'a' + b'b' == b'ab'",
        "2 in [1, 2] && 'a' in {'a': 1} && !('z' in {'a': 1})",
        "!false && !(!true)",
        "[1, 2][1] == 2 && {'k': 'v'}['k'] == 'v' && {1: 'a'}[1] == 'a'",
        "timestamp('2024-01-02T00:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('24h')",
        "timestamp('2024-01-01T00:00:00Z') + duration('1h30m') == timestamp('2024-01-01T01:30:00Z')",
        "duration('1m') > duration('59s')",
        "a.b == 'dotted'",
        "type(1) == int && type('s') == string && type([]) == list && type(type(1)) == type",
    ]);
}

#[test]
fn errors_are_swallowed_where_the_other_side_settles_it() {
    all_true(&[
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "!(1 / 0 == 1 && false)",
        "[0, 1].exists(i, 1 / i == 1)",
        "![0, 2].all(i, 2 / i == 2)",
    ]);
    for (source, expected) in [
        ("1 / 0 == 1 || false", "division by zero"),
        ("1 % 0 == 1", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("object.spec.missing == 1", "no such key: missing"),
        ("object.spec.containers[5]", "index out of bounds: 5"),
        ("object.spec.replicas.x == 1", "no such overload"),
        ("object.spec.replicas + 'x'", "no such overload"),
        ("optional.none().value()", "optional.none() dereference"),
    ] {
        assert_eq!(run(source), Err(expected.into()), "{source}");
    }
}

#[test]
fn fields_are_found_and_tested() {
    all_true(&[
        "object.spec.replicas == 3",
        "has(object.spec.replicas) && !has(object.spec.missing)",
        "object.spec.?replicas.orValue(0) == 3 && object.?nothing.?at.orValue('none') == 'none'",
        "object.spec.containers[?9].?name.orValue('x') == 'x'",
        "object[?'spec'].hasValue()",
        "object.metadata.labels.app == 'web' && object.metadata.labels['tier'] == 'front'",
        "object.spec.`my-field` == 1",
        "typed.spec.replicas > 1 && typed.at.getFullYear() == 2024 && typed.labels.k == 'v'",
    ]);
}

#[test]
fn macros_go_over_lists_and_maps() {
    all_true(&[
        "object.spec.containers.all(c, c.image.contains('/'))",
        "object.spec.containers.exists(c, c.name == 'b')",
        "object.spec.containers.exists_one(c, c.name == 'b')",
        "object.spec.containers.map(c, c.name) == ['a', 'b']",
        "[1, 2, 3].map(i, i > 1, i * 2) == [4, 6]",
        "[1, 2, 3].filter(i, i % 2 == 1) == [1, 3]",
        "{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])",
        "[1, 2].all(x, [3].all(y, x < y)) && x == 7",
        "[5, 6].all(i, v, v == i + 5) && {'a': 1}.exists(k, v, k == 'a' && v == 1)",
        "[1, 2].transformList(i, v, i * v) == [0, 2]",
        "{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10) == {'b': 20}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        "optional.of(2).optMap(v, v * 2).value() == 4 && !optional.none().optMap(v, v).hasValue()",
        "[?optional.none(), ?optional.of(1)] == [1] && {?'a': optional.none()} == {}",
    ]);
}

#[test]
fn strings_have_their_functions() {
    all_true(&[
        "'hello'.charAt(1) == 'e' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'hello'.indexOf('l', 3) == 3",
        "['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'",
        "'AbC'.lowerAscii() == 'abc' && 'AbC'.upperAscii() == 'ABC' && '  x '.trim() == 'x' && 'abc'.reverse() == 'cba'",
        "'a-b-c'.split('-') == ['a', 'b', 'c'] && 'a-b-c'.split('-', 2) == ['a', 'b-c'] && 'abc'.split('') == ['a', 'b', 'c']",
        "'aXbX'.replace('X', '-') == 'a-b-' && 'aXbX'.replace('X', '-', 1) == 'a-bX'",
        "'héllo'.substring(1, 3) == 'él' && 'héllo'.substring(4) == 'o' && size('héllo') == 5",
        "'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.matches('^a.c$') && 'abc'.contains('b')",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]', 1) == ['1']",
        "strings.quote('a\"b') == '\"a\\\\\"b\"'",
        "base64.encode(b'hi') == 'aGk=' && base64.decode('aGk=') == b'hi' && base64.decode('aGk') == b'hi'",
        "jsonpatch.escapeKey('k8s.io/my~label') == 'k8s.io~1my~0label'",
        "'%s is %d, %.2f, %x, %b %%'.format(['a', 5, 1.5, 255, true]) == 'a is 5, 1.50, ff, 1 %'",
        "'%s %s'.format([[1, 2], {'k': 'v'}]) == '[1, 2] {k: v}'",
        "int('12') == 12 && double('1.5') == 1.5 && string(1.0) == '1' && string(duration('90s')) == '90s' && bool('true')",
        "string(timestamp('2024-01-01T00:00:00Z')) == '2024-01-01T00:00:00Z' && string(b'x') == 'x'",
    ]);
}

#[test]
fn kubernetes_libraries_are_there() {
    all_true(&[
        "[1, 2, 3].isSorted() && ![2, 1].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && ['a', 'b'].max() == 'b'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1, 2].indexOf(9) == -1",
        "[1, 1, 2].distinct() == [1, 2] && [3, 1].sort() == [1, 3] && [[1], [2]].flatten() == [1, 2] && [1, 2, 3].slice(1, 2) == [2]",
        "sets.contains([1, 2], [1]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
        "url('https://example.com:80/a%20b?k=v&k=w').getHost() == 'example.com:80'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://h:8/').getPort() == '8' && url('/path').getScheme() == ''",
        "url('https://h/a b').getEscapedPath() == '/a' || !isURL('https://h/a b')",
        "url('https://h/?k=v&k=w').getQuery()['k'] == ['v', 'w'] && isURL('https://h') && !isURL('../rel')",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('10.0.0.256') && ip('127.0.0.1').isLoopback() && ip.isCanonical('::1')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && isCIDR('10.0.0.0/8')",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8 && string(cidr('::/0').ip()) == '::'",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('500m')).compareTo(quantity('1')) == 0",
        "isQuantity('1.5Gi') && !isQuantity('x') && quantity('2').asInteger() == 2 && quantity('-1').sign() == -1 && quantity('1').sub(1) == quantity('0')",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).major() == 1 && !isSemver('v1.2') && semver('1.0.0-a').isLessThan(semver('1.0.0'))",
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My_Name').hasValue()",
        "format.named('uuid').value().validate('x').value() == ['does not match the UUID format'] && !format.named('nope').hasValue()",
        "timestamp('2024-02-03T04:05:06Z').getMonth() == 1 && timestamp('2024-02-03T23:05:06Z').getDayOfMonth('+02:00') == 3",
        "duration('90m').getHours() == 1 && duration('1.5s').getMilliseconds() == 500",
    ]);
}

#[test]
fn compile_errors_are_upstreams() {
    for (source, expected) in [
        ("1 == foo", "ERROR: <input>:1:6: undeclared reference to 'foo' (in container '')\n | 1 == foo\n | .....^"),
        ("typed.spec.replica > 1", "ERROR: <input>:1:11: undefined field 'replica'\n | typed.spec.replica > 1\n | ..........^"),
        ("'a' > 1", "ERROR: <input>:1:5: found no matching overload for '_>_' applied to '(string, int)'\n | 'a' > 1\n | ....^"),
        (
            "typed.spec.name.startsWith(1)",
            "ERROR: <input>:1:27: found no matching overload for 'startsWith' applied to 'string.(int)'\n | typed.spec.name.startsWith(1)\n | ..........................^",
        ),
        ("x.y", "ERROR: <input>:1:2: type 'int' does not support field selection\n | x.y\n | .^"),
        ("1 == 1.0", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, double)'\n | 1 == 1.0\n | ..^"),
        ("nope(1)", "ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')\n | nope(1)\n | ....^"),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("true && 1", "ERROR: <input>:1:6: found no matching overload for '_&&_' applied to '(bool, int)'\n | true && 1\n | .....^"),
        (
            "true ? 1 : 'a'",
            "ERROR: <input>:1:6: found no matching overload for '_?_:_' applied to '(bool, int, string)'\n | true ? 1 : 'a'\n | .....^",
        ),
        ("Foo{a: 1}", "ERROR: <input>:1:4: undeclared reference to 'Foo' (in container '')\n | Foo{a: 1}\n | ...^"),
        ("has(x)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(x)\n | ....^"),
        (
            "typed.spec.tags.all(t, t)",
            "ERROR: <input>:1:20: found no matching overload for '_&&_' applied to '(bool, string)'\n | typed.spec.tags.all(t, t)\n | ...................^",
        ),
    ] {
        assert_eq!(compile(source, &env()).map(|p| p.result().to_string()).map_err(|e| e.to_string()), Err(expected.into()), "{source}");
    }
    let two = compile("foo == 1 &&\n bar", &env()).unwrap_err().to_string();
    assert_eq!(
        two,
        "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo == 1 &&\n | ^\nERROR: <input>:2:2: undeclared reference to 'bar' (in container '')\n |  bar\n | .^"
    );
}

#[test]
fn results_have_types() {
    for (source, expected) in [
        ("1 < 2", "bool"),
        ("object.x", "dyn"),
        ("[1]", "list(int)"),
        ("{'a': [1.0]}", "map(string, list(double))"),
        ("typed.spec.tags[0]", "string"),
        ("typed.?spec", "optional_type(Spec)"),
        ("typed.?spec.replicas", "optional_type(int)"),
        ("[]", "list(dyn)"),
        ("typed.spec.tags.map(t, size(t))", "list(int)"),
        ("[1, 2].map(i, i > 1, [i])", "list(list(int))"),
        ("quantity('1')", "kubernetes.Quantity"),
        ("x > 1 ? typed.labels : {}", "map(string, string)"),
        ("x > 1 ? 1 : object.y", "dyn"),
        ("null == typed && typed == null", "bool"),
    ] {
        assert_eq!(compile(source, &env()).map(|p| p.result().to_string()), Ok(expected.into()), "{source}");
    }
}

#[test]
fn what_runs_too_long_is_ended() {
    let long = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, a + b + c >= 0)))";
    assert_eq!(run(long), Err("operation cancelled: actual cost limit exceeded".into()));
    let bomb = (0..40).fold("'aaaaaaaaaa'".to_owned(), |inner, _| format!("[{inner}].map(s, s + s)[0]"));
    assert!(run(&bomb).is_err(), "doubling forty times is not paid for");
    let deep = format!("{}1{}", "(".repeat(2000), ")".repeat(2000));
    assert!(run(&deep).unwrap_err().contains("expression recursion limit exceeded"));
    let chain = format!("1{}", " + 1".repeat(5000));
    assert!(run(&chain).unwrap_err().contains("expression recursion limit exceeded"));
    let flat = format!("true{}", " && true".repeat(5000));
    assert_eq!(run(&flat), Ok(Value::Bool(true)));
}

#[test]
fn every_declared_function_is_there() {
    for name in declarations::names().filter(|n| !["_&&_", "_||_", "_?_:_"].contains(n)) {
        assert!(functions::find(name).is_some(), "{name} is declared and has nothing behind it");
    }
}

#[test]
fn structs_are_built_where_the_environment_knows_them() {
    struct Objects;
    impl Fields for Objects {
        fn field(&self, _: &str) -> Option<Type> {
            Some(Type::Dyn)
        }
    }
    impl Messages for Objects {
        fn message(&self, name: &str) -> Option<Type> {
            let known = name == "Object" || name.starts_with("Object.");
            known.then(|| Type::Object(ObjectType { name: name.into(), fields: Arc::new(Objects) }))
        }
    }
    let env = Env::new().messages(Arc::new(Objects));
    let program = compile("Object{spec: Object.spec{replicas: 1 + 2, labels: {'a': 'b'}}}", &env).unwrap();
    assert_eq!(program.result().to_string(), "Object");
    let value = program.eval(&Bindings::new(), &Budget::per_call()).unwrap();
    assert_eq!(value.to_json().unwrap(), json!({"spec": {"replicas": 3, "labels": {"a": "b"}}}));
}

#[test]
fn opaque_values_answer_for_themselves() {
    #[derive(Debug)]
    struct Authorizer;
    impl Opaque for Authorizer {
        fn type_name(&self) -> &'static str {
            "kubernetes.authorization.Authorizer"
        }
        fn call(&self, function: &str, args: &[Value]) -> Option<Result<Value, EvalError>> {
            match (function, args) {
                ("group" | "resource" | "check", [Value::String(_)]) => Some(Ok(Value::Opaque(Arc::new(Authorizer)))),
                ("allowed", []) => Some(Ok(Value::Bool(true))),
                _ => None,
            }
        }
        fn any(&self) -> &dyn std::any::Any {
            self
        }
    }
    let env = Env::new().variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"));
    let program = compile("authorizer.group('').resource('pods').check('get').allowed()", &env).unwrap();
    let bindings = Bindings::new().with("authorizer", Value::Opaque(Arc::new(Authorizer)));
    assert_eq!(program.eval(&bindings, &Budget::per_call()), Ok(Value::Bool(true)));
    assert!(compile("authorizer.group('').check('get').allowed()", &env).is_err(), "a group alone cannot be checked");
}

#[test]
fn schemas_become_types() {
    let definitions: Definitions = Arc::new(|name| {
        (name == "Props").then(|| json!({"type": "object", "properties": {"not": {"$ref": "#/definitions/Props"}, "minimum": {"type": "number"}}}))
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "when": {"type": "string", "format": "date-time"}, "my-field": {"type": "string"},
                "port": {"x-kubernetes-int-or-string": true}, "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "props": {"$ref": "#/definitions/Props"}, "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
            }}
        }
    });
    let env = Env::new().variable("self", type_of_schema("Thing", &schema, &definitions, true));
    let result = |source: &str| compile(source, &env).map(|p| p.result().to_string()).map_err(|e| e.to_string().lines().next().map(str::to_owned));
    for (source, expected) in [
        ("self.spec.replicas", "int"),
        ("self.spec.when", "timestamp"),
        ("self.spec.my__dash__field", "string"),
        ("self.spec.port", "dyn"),
        ("self.spec.labels", "map(string, string)"),
        ("self.spec.props.not.not.minimum", "double"),
        ("self.spec.any.thing", "dyn"),
        ("self.metadata.name", "string"),
        ("self.kind", "string"),
    ] {
        assert_eq!(result(source), Ok(expected.into()), "{source}");
    }
    assert_eq!(result("self.spec.nope"), Err(Some("ERROR: <input>:1:10: undefined field 'nope'".into())));
    assert_eq!(result("self.metadata.labels"), Err(Some("ERROR: <input>:1:14: undefined field 'labels'".into())));
}

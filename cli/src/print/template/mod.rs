//! Go templates (`text/template`) over JSON objects, for `-o go-template`.
//!
//! Covers what is meaningful on objects: fields, variables, pipelines, `if`, `range`, `with`, `define`, `template`, `break`, `continue`
//! and the functions of `text/template` plus kubectl's `exists` and `base64decode`. Method calls do not exist on objects. No I/O.

mod eval;
mod format;
pub(crate) use format::plain;
mod functions;
mod lex;
mod parse;

use std::collections::HashMap;

use serde_json::Value;

/// A template that does not parse or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// A template that failed while it ran, and what it had printed by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// What stands before the place it failed at.
    pub printed: String,
    /// Why, in the words of `text/template`.
    pub error: Error,
}

pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error(message.into()))
}

/// A parsed template and the templates it defines.
#[derive(Debug)]
pub struct Template {
    source: String,
    body: Vec<parse::Node>,
    named: HashMap<String, Vec<parse::Node>>,
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Template, Error> {
        parse::parse(text).map_err(|e| Error(format!("template: output:1: {}", e.0)))
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Runs it on an object. With `allow_missing` false a key that is not there is an error (`missingkey=error`).
    pub fn run(&self, object: &Value, allow_missing: bool) -> Result<String, Failed> {
        eval::run(self, object, allow_missing)
    }
}

#[cfg(test)]
mod tests {
    use super::Template;
    use serde_json::json;

    #[test]
    fn prints_as_go_does() {
        let object = json!({
            "kind": "Deployment",
            "metadata": {"name": "d", "labels": {"app.kubernetes.io/name": "web", "zz": "1"}, "annotations": {"x": "a<b"}},
            "spec": {"replicas": 3, "paused": true, "f": 1.5, "n": null,
                     "c": [{"name": "a", "image": "i1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "i2"}]}
        });
        for (template, wanted) in [
            ("{{.metadata.name}}", "d"),
            ("{{.spec.nope}}", "<no value>"),
            ("{{.spec.nope.x}}", "<no value>"),
            ("{{range .spec.c}}{{.name}} {{end}}", "a b "),
            ("{{range $i, $c := .spec.c}}{{$i}}={{$c.name}},{{end}}", "0=a,1=b,"),
            ("{{range $k,$v := .metadata.labels}}{{$k}}:{{$v}};{{end}}", "app.kubernetes.io/name:web;zz:1;"),
            ("{{index .metadata.labels \"app.kubernetes.io/name\"}}", "web"),
            ("{{len .spec.c}}", "2"),
            (
                "{{printf \"%s-%d|%5s|%-5s|%q|%v|%05d|%.2f\" .metadata.name 3 \"a\" \"b\" \"c\" .spec.replicas 42 .spec.f}}",
                "d-3|    a|b    |\"c\"|3|00042|1.50",
            ),
            ("{{if .spec.paused}}y{{else}}n{{end}}", "y"),
            ("{{if eq .kind \"D\"}}y{{else if eq .kind \"x\"}}z{{else}}n{{end}}", "n"),
            ("{{with .spec}}{{.c | len}}{{end}}", "2"),
            ("{{.spec.c}}", "[map[image:i1 name:a ports:[map[containerPort:80]]] map[image:i2 name:b]]"),
            ("{{.spec.replicas}} {{.spec.f}} {{.spec.paused}} {{.spec.n}}", "3 1.5 true <no value>"),
            ("{{\"YWJj\" | base64decode}}", "abc"),
            ("{{and .kind .spec.nope}}", "<no value>"),
            ("{{or .spec.nope .kind}}", "Deployment"),
            ("{{not .kind}} {{ne .kind \"a\"}} {{lt .spec.replicas 4}}", "false true true"),
            ("{{- .kind -}}  x", "Deploymentx"),
            ("{{/* c */}}x", "x"),
            ("{{$x := .kind}}{{$x}}{{$x = \"b\"}}{{$x}}", "Deploymentb"),
            ("{{define \"T\"}}<{{.}}>{{end}}{{template \"T\" .kind}}", "<Deployment>"),
            ("{{exists .spec \"paused\"}}", "true"),
            ("{{index .spec.c 0 \"name\"}}", "a"),
            ("{{slice .kind 1 3}}", "ep"),
            ("{{html .metadata.annotations.x}}", "a&lt;b"),
            ("{{print 1 2 \"a\" \"b\" 3}}", "1 2a b3".replace("a b", "ab").as_str()),
            ("{{println 1 2 \"a\"}}", "1 2 a\n"),
            ("{{range .spec.x}}a{{else}}none{{end}}", "none"),
            ("{{range .spec.c}}{{if eq .name \"a\"}}{{continue}}{{end}}{{.name}}{{end}}", "b"),
            ("{{(index .spec.c 0).name}}", "a"),
            ("{{ .kind | printf \"%s!\" }}", "Deployment!"),
            ("{{`raw`}}{{3.5}}{{1e3}}{{true}}", "raw3.51000true"),
            ("{{range .spec.c}}{{$.kind}}{{break}}{{end}}", "Deployment"),
            ("{{urlquery \"a b&c\"}} {{js \"a<b\"}}", "a+b%26c a\\u003Cb"),
            ("{{range 3}}x{{end}}", "xxx"),
            ("{{'a'}}", "97"),
            ("{{printf \"%T %v %#v\" .kind .spec.n .kind}}", "string <nil> \"Deployment\""),
            ("{{eq .spec.replicas 1 2 3}}", "true"),
        ] {
            let text = Template::parse(template).and_then(|t| t.run(&object, true).map_err(|f| f.error));
            assert_eq!(text.as_deref(), Ok(wanted), "{template}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for template in [
            "{{.kind",
            "{{foo}}",
            "{{end}}",
            "{{if}}x{{end}}",
            "{{range .x}}",
            "{{$y}}",
            "{{index .a 9}}",
            "{{eq 1 2.0}}",
            "{{nil}}",
            "{{template \"none\"}}",
        ] {
            let object = json!({"a": []});
            assert!(Template::parse(template).map_or(true, |t| t.run(&object, true).is_err()), "{template}");
        }
        assert!(Template::parse("{{.nope}}").unwrap().run(&json!({}), false).is_err());
    }

    #[test]
    fn what_fails_is_told_in_gos_words_and_with_its_place() {
        let object = json!({"kind": "Deployment", "spec": {"replicas": 3, "f": 1.5, "list": ["a", "b"]}});
        for (template, place, cause) in [
            ("{{.kind.a}}", "1:7: executing \"output\" at <.kind.a>", "can't evaluate field a in type interface {}"),
            ("a\n {{.kind.a.b}}", "2:8: executing \"output\" at <.kind.a.b>", "can't evaluate field a in type interface {}"),
            ("{{$x := .spec}}{{$x.f.z}}", "1:19: executing \"output\" at <$x.f.z>", "can't evaluate field z in type interface {}"),
            ("{{(index .spec \"list\").foo}}", "1:15: executing \"output\" at <\"list\">", "can't evaluate field foo in type []interface {}"),
            ("{{range .spec.list}}{{.x}}{{end}}", "1:22: executing \"output\" at <.x>", "can't evaluate field x in type interface {}"),
            ("{{define \"T\"}}{{.x}}{{end}}{{template \"T\" .kind}}", "1:16: executing \"T\" at <.x>", "can't evaluate field x in type string"),
            ("{{index .spec 3}}", "1:2: executing \"output\" at <index .spec 3>", "error calling index: value has type int; should be string"),
            (
                "{{index .spec.list .spec.replicas}}",
                "1:2: executing \"output\" at <index .spec.list .spec.replicas>",
                "error calling index: index out of range: 3",
            ),
            (
                "{{\"a\" | index .spec.list}}",
                "1:8: executing \"output\" at <index .spec.list>",
                "error calling index: cannot index slice/array with type string",
            ),
            ("{{range .kind}}x{{end}}", "1:8: executing \"output\" at <.kind>", "range can't iterate over Deployment"),
            ("{{not 1 2}}", "1:2: executing \"output\" at <not>", "wrong number of args for not: want 1 got 2"),
            ("{{index}}", "1:2: executing \"output\" at <index>", "wrong number of args for index: want at least 1 got 0"),
            (
                "{{.spec | base64decode}}",
                "1:10: executing \"output\" at <base64decode>",
                "wrong type for value; expected string; got map[string]interface {}",
            ),
            ("{{printf 3}}", "1:9: executing \"output\" at <3>", "expected string; found 3"),
            ("{{template \"none\" .kind}}", "1:11: executing \"output\" at <{{template \"none\" .kind}}>", "template \"none\" not defined"),
            ("{{.kind | .kind}}", "1:10: executing \"output\" at <.kind>", "kind is not a method but has arguments"),
            ("{{3 4}}", "1:2: executing \"output\" at <3>", "can't give argument to non-function 3"),
            (
                "{{eq .spec.replicas 3.0}}",
                "1:2: executing \"output\" at <eq .spec.replicas 3.0>",
                "error calling eq: incompatible types for comparison: int64 and float64",
            ),
            (
                "{{eq .spec.list .spec.list}}",
                "1:2: executing \"output\" at <eq .spec.list .spec.list>",
                "error calling eq: non-comparable type [a b]: []interface {}",
            ),
            ("{{call .kind}}", "1:2: executing \"output\" at <call .kind>", "error calling call: non-function .kind of type string"),
            (
                "x{{base64decode \"%%%\"}}",
                "1:3: executing \"output\" at <base64decode \"%%%\">",
                "error calling base64decode: base64 decode failed: illegal base64 data at input byte 0",
            ),
        ] {
            let failed = Template::parse(template).unwrap().run(&object, true).unwrap_err();
            assert_eq!(failed.error.to_string(), format!("template: output:{place}: {cause}"), "{template}");
        }
        assert_eq!(Template::parse("ab{{.kind.x}}").unwrap().run(&object, true).unwrap_err().printed, "ab");
    }
}

//! `explain`: what a field means, from the server's OpenAPI document
//! (`k8s.io/kubectl/pkg/explain/v2/templates/plaintext.tmpl`).

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::discovery::Kind;
use crate::errors;
use crate::print;

/// Get documentation for a resource
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TYPE[.FIELD...]
    #[arg(value_name = "TYPE.FIELD", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    /// Use given api-version (group/version) of the resource
    #[arg(long, default_value = "")]
    pub api_version: String,
    /// When true, print the name of all the fields recursively
    #[arg(long)]
    pub recursive: bool,
    /// Format in which to render the schema. Valid values are: (plaintext)
    #[arg(short = 'o', long, default_value = "plaintext")]
    pub output: String,
}

const WIDTH: usize = 76;

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let path = match self.args.as_slice() {
            [] => bail!("You must specify the type of resource to explain. Use \"kctl api-resources\" for a complete list of supported resources."),
            [path] => path,
            _ => bail!("We accept only this format: explain RESOURCE"),
        };
        if !matches!(self.output.as_str(), "plaintext" | "") {
            bail!("unrecognized format: {}", self.output);
        }
        let (kind, fields) = self.resolve(ctx, path).await?;
        let document = document(ctx, &kind).await?;
        let schemas = Schemas(&document["components"]["schemas"]);
        let root = schemas.of_kind(&kind).ok_or_else(|| anyhow!("couldn't find resource for {:?}", kind.resource()))?;
        print::emit(&self.text(&schemas, &kind, root, &fields)?)
    }

    /// The kind and the fields behind it; a group may hold dots too.
    async fn resolve(&self, ctx: &Ctx, path: &str) -> Result<(Kind, Vec<String>)> {
        let discovery = ctx.discovery().await?;
        let parts: Vec<&str> = path.split('.').collect();
        let mut best: Option<(std::rc::Rc<Kind>, usize)> = discovery.find(parts[0]).map(|k| (k, 1));
        for length in 2..=parts.len() {
            if best.is_none() || discovery.find(parts[0]).is_none() {
                best = discovery.find(&parts[..length].join(".")).map(|k| (k, length)).or(best);
            } else if let Some(kind) =
                discovery.find(&parts[..length].join(".")).filter(|k| !k.group.is_empty() && parts[1..length].join(".").ends_with(&k.group))
            {
                best = Some((kind, length));
            }
        }
        let Some((kind, used)) = best else { bail!(crate::errors::Plain(format!("the server doesn't have a resource type {:?}", parts[0]))) };
        let mut kind = (*kind).clone();
        if !self.api_version.is_empty() {
            let found = discovery.find_exact(&self.api_version, &kind.kind);
            kind = (*found.ok_or_else(|| anyhow!("couldn't find resource for {:?}", format!("{}, Resource={}", self.api_version, kind.plural)))?)
                .clone();
        }
        Ok((kind, parts[used..].iter().filter(|p| !p.is_empty()).map(|p| (*p).to_owned()).collect()))
    }

    fn text(&self, schemas: &Schemas<'_>, kind: &Kind, root: &Value, fields: &[String]) -> Result<String> {
        let mut out = String::new();
        if !kind.group.is_empty() {
            out.push_str(&format!("GROUP:      {}\n", kind.group));
        }
        out.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", kind.kind, kind.version));
        let mut schema = root;
        let mut described = root;
        for (index, field) in fields.iter().enumerate() {
            let inner = schemas.element(schemas.resolve(schema));
            let Some(found) = inner["properties"].get(field) else {
                // What was found so far is printed, then the error, as upstream does.
                print::emit(&out)?;
                bail!("field {:?} does not exist", fields.last().unwrap_or(field));
            };
            (schema, described) = (found, found);
            if index + 1 == fields.len() {
                out.push_str(&format!("FIELD: {field} <{}>\n", schemas.type_of(found)));
                out.push_str(&enums(schemas.resolve(found), "", "\n"));
                out.push('\n');
            }
        }
        if !fields.is_empty() {
            out.push('\n');
        }
        out.push_str("DESCRIPTION:\n");
        out.push_str(&description(schemas, described));
        let object = schemas.element(schemas.resolve(schema));
        if object["properties"].as_object().is_some_and(|p| !p.is_empty()) {
            out.push_str("FIELDS:\n");
            self.fields(schemas, object, 1, &mut Vec::new(), &mut out);
        }
        out.push('\n');
        Ok(out)
    }

    fn fields(&self, schemas: &Schemas<'_>, object: &Value, level: usize, seen: &mut Vec<String>, out: &mut String) {
        let required: Vec<&str> = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, field) in object["properties"].as_object().into_iter().flatten() {
            let mark = if required.contains(&name.as_str()) { " -required-" } else { "" };
            let indent = "  ".repeat(level);
            out.push_str(&format!("{indent}{name}\t<{}>{mark}\n", schemas.type_of(field)));
            out.push_str(&enums(schemas.resolve(field), &indent, ""));
            if self.recursive {
                let inner = schemas.element(schemas.resolve(field));
                let reference = schemas.reference(field).unwrap_or_default();
                // Schemas such as JSONSchemaProps contain themselves.
                if !seen.contains(&reference) || reference.is_empty() {
                    seen.push(reference);
                    self.fields(schemas, inner, level + 1, seen, out);
                    seen.pop();
                }
            } else {
                let text = described(schemas, field);
                out.push_str(&wrapped(if text.is_empty() { "<no description>" } else { &text }, WIDTH, "    "));
                out.push('\n');
            }
        }
    }
}

/// `ENUM: a, b`
fn enums(schema: &Value, indent: &str, after: &str) -> String {
    let values: Vec<&str> = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if values.is_empty() { String::new() } else { format!("{indent}enum: {}\n{after}", values.join(", ")) }
}

/// The description of a field followed by that of its type, as upstream joins them.
fn described(schemas: &Schemas<'_>, field: &Value) -> String {
    field["description"]
        .as_str()
        .filter(|d| !d.is_empty())
        .map(ToOwned::to_owned)
        .unwrap_or_else(|| schemas.resolve(field)["description"].as_str().unwrap_or_default().to_owned())
}

fn description(schemas: &Schemas<'_>, schema: &Value) -> String {
    let mut texts: Vec<&str> = Vec::new();
    let resolved = schemas.resolve(schema);
    for candidate in [&schema["description"], &resolved["description"], &schemas.element(resolved)["description"]] {
        if let Some(text) = candidate.as_str().filter(|t| !t.is_empty())
            && !texts.contains(&text)
        {
            texts.push(text);
        }
    }
    let text = if texts.is_empty() { "<empty>".to_owned() } else { texts.join("\n") };
    format!("{}    \n", wrapped(&text, WIDTH, "    "))
}

/// The text in lines of at most `width` letters, each line indented; its own line breaks and runs of blanks stay.
fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let lines = word_wrap(text, width);
    lines.split('\n').map(|line| format!("{indent}{line}\n")).collect()
}

/// Breaks lines where go-wordwrap does: at the blanks before a word that would pass the limit, which are dropped.
fn word_wrap(text: &str, limit: usize) -> String {
    let (mut out, mut current) = (String::with_capacity(text.len()), 0);
    let (mut word, mut word_length) = (String::new(), 0);
    let (mut space, mut space_length) = (String::new(), 0);
    for c in text.chars() {
        if c == '\n' {
            if !word.is_empty() || current + space_length <= limit {
                out.push_str(&space);
            }
            out.push_str(&word);
            out.push('\n');
            (space_length, word_length, current) = (0, 0, 0);
            space.clear();
            word.clear();
        } else if c.is_whitespace() && c != '\u{a0}' {
            if space.is_empty() || !word.is_empty() {
                current += space_length + word_length;
                out.push_str(&space);
                out.push_str(&word);
                (space_length, word_length) = (0, 0);
                space.clear();
                word.clear();
            }
            space.push(c);
            space_length += 1;
        } else {
            word.push(c);
            word_length += 1;
            if current + word_length + space_length > limit && word_length < limit {
                out.push('\n');
                (space_length, current) = (0, 0);
                space.clear();
            }
        }
    }
    if !word.is_empty() || current + space_length <= limit {
        out.push_str(&space);
    }
    out.push_str(&word);
    out
}

/// The document of a kind's group and version. It is kept with the address that names its state: what has not changed is not fetched again,
/// and where no server can be reached the kept one has to do.
async fn document(ctx: &Ctx, kind: &Kind) -> Result<Value> {
    let client = ctx.client().await?;
    let path = if kind.group.is_empty() { format!("api/{}", kind.version) } else { format!("apis/{}/{}", kind.group, kind.version) };
    let file = crate::discovery::cache_of(client, &ctx.cache_dir()).join("openapi").join(format!("{}.json", path.replace('/', "_")));
    let kept = || serde_json::from_slice::<Value>(&std::fs::read(&file).ok()?).ok();
    let index = match client.get("/openapi/v3").await {
        Ok(index) => index,
        Err(error) if errors::is_unreachable(&error) => return kept().map(|mut kept| kept["document"].take()).ok_or(error),
        Err(error) => return Err(error),
    };
    let url = index["paths"][&path]["serverRelativeURL"]
        .as_str()
        .ok_or_else(|| anyhow!("couldn't find resource for {:?}: the server has no OpenAPI document for {path}", kind.resource()))?;
    if let Some(mut kept) = kept().filter(|kept| kept["url"] == url) {
        return Ok(kept["document"].take());
    }
    let document = client.get(url).await?;
    crate::discovery::keep(&file, &json!({ "url": url, "document": document }));
    Ok(document)
}

/// The schemas of one document.
struct Schemas<'a>(&'a Value);

impl<'a> Schemas<'a> {
    fn of_kind(&self, kind: &Kind) -> Option<&'a Value> {
        self.0.as_object()?.values().find(|schema| {
            schema["x-kubernetes-group-version-kind"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|g| g["group"] == kind.group.as_str() && g["version"] == kind.version.as_str() && g["kind"] == kind.kind.as_str())
        })
    }

    /// The name of the schema a field refers to.
    fn reference(&self, field: &Value) -> Option<String> {
        let direct = field["$ref"]
            .as_str()
            .or_else(|| field["allOf"][0]["$ref"].as_str())
            .or_else(|| field["items"]["$ref"].as_str())
            .or_else(|| field["items"]["allOf"][0]["$ref"].as_str());
        direct.or_else(|| field["additionalProperties"]["$ref"].as_str()).map(|r| r.rsplit('/').next().unwrap_or(r).to_owned())
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        match reference.and_then(|r| self.0.get(r.rsplit('/').next().unwrap_or(r))) {
            Some(found) => self.resolve(found),
            None => schema,
        }
    }

    /// What a list or map holds; anything else is itself.
    fn element(&self, schema: &'a Value) -> &'a Value {
        if schema["items"].is_object() {
            return self.element(self.resolve(&schema["items"]));
        }
        if schema["additionalProperties"].is_object() {
            return self.element(self.resolve(&schema["additionalProperties"]));
        }
        schema
    }

    /// `[]Container`, `map[string]string`, `integer`.
    fn type_of(&self, schema: &'a Value) -> String {
        if let Some(reference) = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str()) {
            let resolved = self.resolve(schema);
            let plain = resolved["type"].as_str().filter(|t| *t != "object" && resolved["properties"].is_null());
            return match plain {
                Some(kind) => kind.to_owned(),
                None => reference.rsplit(['/', '.']).next().unwrap_or("Object").to_owned(),
            };
        }
        if schema["items"].is_object() {
            return format!("[]{}", self.type_of(&schema["items"]));
        }
        if schema["additionalProperties"].is_object() {
            return format!("map[string]{}", self.type_of(&schema["additionalProperties"]));
        }
        match schema["type"].as_str() {
            Some("object") | None => "Object".into(),
            Some(kind) => kind.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_are_named_as_kubectl_names_them() {
        let all = json!({"io.k8s.api.core.v1.Container": {"type": "object", "properties": {"a": {}}}, "io.k8s.Time": {"type": "string"}});
        let schemas = Schemas(&all);
        for (schema, name) in [
            (json!({"type": "integer"}), "integer"),
            (json!({"type": "array", "items": {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]}}), "[]Container"),
            (json!({"type": "object", "additionalProperties": {"type": "string"}}), "map[string]string"),
            (json!({"$ref": "#/components/schemas/io.k8s.Time"}), "string"),
        ] {
            let schema: &'static Value = Box::leak(Box::new(schema));
            let schemas = Schemas(Box::leak(Box::new(all.clone())));
            assert_eq!(schemas.type_of(schema), name);
        }
        assert!(schemas.of_kind(&Kind::default()).is_none());
    }

    #[test]
    fn text_is_wrapped_at_words() {
        assert_eq!(wrapped("aaa bbb ccc", 7, "  "), "  aaa bbb\n  ccc\n");
        assert_eq!(wrapped("a\n\nb", 7, " "), " a\n \n b\n");
    }
}

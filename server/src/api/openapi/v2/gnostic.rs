//! The protobuf form of OpenAPI v2 (`github.com/google/gnostic/openapiv2/OpenAPIv2.proto`), which Go clients ask for.
//!
//! Owns the messages, as far as Kubernetes' documents use them, and their making from JSON. Values of any type are YAML in it, and JSON is YAML.

use prost::Message;
use serde_json::Value;

/// Encodes a document: its head, and its paths and definitions, which are encoded already.
pub(super) fn document(head: &Value, paths: Vec<u8>, definitions: Vec<u8>) -> Vec<u8> {
    let mut out = Document::of(head).encode_to_vec();
    prost::encoding::bytes::encode(8, &paths, &mut out);
    prost::encoding::bytes::encode(9, &definitions, &mut out);
    out
}

/// Adds a path to the encoded ones.
pub(super) fn add_path(out: &mut Vec<u8>, name: &str, item: &Value) {
    let named = NamedPathItem { name: name.to_owned(), value: Some(PathItem::of(item)) };
    prost::encoding::message::encode(2, &named, out);
}

/// Adds a definition to the encoded ones.
pub(super) fn add_definition(out: &mut Vec<u8>, name: &str, schema: &Value) {
    let named = NamedSchema { name: name.to_owned(), value: Some(Schema::of(schema)) };
    prost::encoding::message::encode(1, &named, out);
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Document {
    #[prost(string, tag = "1")]
    pub swagger: String,
    #[prost(message, optional, tag = "2")]
    pub info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    pub paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    pub definitions: Option<Schemas>,
    #[prost(message, repeated, tag = "12")]
    pub security: Vec<SecurityRequirement>,
    #[prost(message, optional, tag = "13")]
    pub security_definitions: Option<SecurityDefinitions>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Info {
    #[prost(string, tag = "1")]
    pub title: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "2")]
    pub yaml: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedAny {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Paths {
    #[prost(message, repeated, tag = "2")]
    pub path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedPathItem {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PathItem {
    #[prost(message, optional, tag = "2")]
    pub get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    pub put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    pub post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    pub delete: Option<Operation>,
    #[prost(message, optional, tag = "6")]
    pub options: Option<Operation>,
    #[prost(message, optional, tag = "7")]
    pub head: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    pub patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    pub parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Operation {
    #[prost(string, repeated, tag = "1")]
    pub tags: Vec<String>,
    #[prost(string, tag = "3")]
    pub description: String,
    #[prost(string, tag = "5")]
    pub operation_id: String,
    #[prost(string, repeated, tag = "6")]
    pub produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    pub responses: Option<Responses>,
    #[prost(string, repeated, tag = "10")]
    pub schemes: Vec<String>,
    #[prost(bool, tag = "11")]
    pub deprecated: bool,
    #[prost(message, repeated, tag = "13")]
    pub vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    pub parameter: Option<Parameter>,
}

/// One of the two.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Parameter {
    #[prost(message, optional, tag = "1")]
    pub body: Option<BodyParameter>,
    #[prost(message, optional, tag = "2")]
    pub other: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BodyParameter {
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub location: String,
    #[prost(bool, tag = "4")]
    pub required: bool,
    #[prost(message, optional, tag = "5")]
    pub schema: Option<Schema>,
}

/// One of the two.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    pub query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    pub path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QueryParameter {
    #[prost(string, tag = "2")]
    pub location: String,
    #[prost(string, tag = "3")]
    pub description: String,
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(string, tag = "6")]
    pub r#type: String,
    #[prost(bool, tag = "20")]
    pub unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PathParameter {
    #[prost(bool, tag = "1")]
    pub required: bool,
    #[prost(string, tag = "2")]
    pub location: String,
    #[prost(string, tag = "3")]
    pub description: String,
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(string, tag = "5")]
    pub r#type: String,
    #[prost(bool, tag = "19")]
    pub unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Responses {
    #[prost(message, repeated, tag = "1")]
    pub response_code: Vec<NamedResponse>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedResponse {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    pub response: Option<Answer>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(string, tag = "1")]
    pub description: String,
    #[prost(message, optional, tag = "2")]
    pub schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    pub schema: Option<Schema>,
}

/// `Definitions` and `Properties`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Schemas {
    #[prost(message, repeated, tag = "1")]
    pub named: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedSchema {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Schema {
    #[prost(string, tag = "1")]
    pub reference: String,
    #[prost(string, tag = "2")]
    pub format: String,
    #[prost(string, tag = "4")]
    pub description: String,
    #[prost(double, tag = "7")]
    pub maximum: f64,
    #[prost(double, tag = "9")]
    pub minimum: f64,
    #[prost(int64, tag = "11")]
    pub max_length: i64,
    #[prost(int64, tag = "12")]
    pub min_length: i64,
    #[prost(string, tag = "13")]
    pub pattern: String,
    #[prost(int64, tag = "14")]
    pub max_items: i64,
    #[prost(int64, tag = "15")]
    pub min_items: i64,
    #[prost(bool, tag = "16")]
    pub unique_items: bool,
    #[prost(string, repeated, tag = "19")]
    pub required: Vec<String>,
    #[prost(message, repeated, tag = "20")]
    pub r#enum: Vec<Any>,
    #[prost(message, optional, boxed, tag = "21")]
    pub additional_properties: Option<Box<AdditionalProperties>>,
    #[prost(message, optional, tag = "22")]
    pub r#type: Option<Texts>,
    #[prost(message, optional, tag = "23")]
    pub items: Option<Items>,
    #[prost(message, repeated, tag = "24")]
    pub all_of: Vec<Schema>,
    #[prost(message, optional, tag = "25")]
    pub properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    pub vendor_extension: Vec<NamedAny>,
}

/// One of the two.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AdditionalProperties {
    #[prost(message, optional, tag = "1")]
    pub schema: Option<Schema>,
    #[prost(bool, optional, tag = "2")]
    pub boolean: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Items {
    #[prost(message, repeated, tag = "1")]
    pub schema: Vec<Schema>,
}

/// `TypeItem` and `StringArray`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SecurityRequirement {
    #[prost(message, repeated, tag = "1")]
    pub named: Vec<NamedTexts>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedTexts {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Texts>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SecurityDefinitions {
    #[prost(message, repeated, tag = "1")]
    pub named: Vec<NamedSecurity>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedSecurity {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Security>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Security {
    #[prost(message, optional, tag = "2")]
    pub api_key: Option<ApiKey>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ApiKey {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub location: String,
    #[prost(string, tag = "4")]
    pub description: String,
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}
fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}
fn texts(value: &Value, name: &str) -> Vec<String> {
    list(value, name).filter_map(Value::as_str).map(str::to_owned).collect()
}
fn members<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = (String, &'v Value)> {
    value.get(name).and_then(Value::as_object).into_iter().flatten().map(|(name, value)| (name.clone(), value))
}
fn any(value: &Value) -> Any {
    Any { yaml: format!("{value}\n") }
}
fn extensions(value: &Value) -> Vec<NamedAny> {
    let members = value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
    members.map(|(name, value)| NamedAny { name: name.clone(), value: Some(any(value)) }).collect()
}

impl Document {
    fn of(value: &Value) -> Self {
        let info = value.get("info").map(|i| Info { title: text(i, "title"), version: text(i, "version") });
        let security = list(value, "security").map(|requirement| SecurityRequirement {
            named: requirement
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| NamedTexts { name: name.clone(), value: Some(Texts::default()) })
                .collect(),
        });
        let definitions = members(value, "securityDefinitions").map(|(name, key)| {
            let key = ApiKey { r#type: text(key, "type"), name: text(key, "name"), location: text(key, "in"), description: text(key, "description") };
            NamedSecurity { name, value: Some(Security { api_key: Some(key) }) }
        });
        Document {
            swagger: text(value, "swagger"),
            info,
            paths: None,
            definitions: None,
            security: security.collect(),
            security_definitions: Some(SecurityDefinitions { named: definitions.collect() }),
        }
    }
}

impl PathItem {
    fn of(value: &Value) -> Self {
        let operation = |name: &str| value.get(name).map(Operation::of);
        PathItem {
            get: operation("get"),
            put: operation("put"),
            post: operation("post"),
            delete: operation("delete"),
            options: operation("options"),
            head: operation("head"),
            patch: operation("patch"),
            parameters: list(value, "parameters").map(ParametersItem::of).collect(),
        }
    }
}

impl Operation {
    fn of(value: &Value) -> Self {
        let responses = members(value, "responses").map(|(name, response)| {
            let schema = response.get("schema").map(|s| SchemaItem { schema: Some(Schema::of(s)) });
            NamedResponse { name, value: Some(ResponseValue { response: Some(Answer { description: text(response, "description"), schema }) }) }
        });
        Operation {
            tags: texts(value, "tags"),
            description: text(value, "description"),
            operation_id: text(value, "operationId"),
            produces: texts(value, "produces"),
            consumes: texts(value, "consumes"),
            parameters: list(value, "parameters").map(ParametersItem::of).collect(),
            responses: Some(Responses { response_code: responses.collect() }),
            schemes: texts(value, "schemes"),
            deprecated: flag(value, "deprecated"),
            vendor_extension: extensions(value),
        }
    }
}

impl ParametersItem {
    fn of(value: &Value) -> Self {
        let (name, location, description) = (text(value, "name"), text(value, "in"), text(value, "description"));
        let (r#type, required, unique_items) = (text(value, "type"), flag(value, "required"), flag(value, "uniqueItems"));
        let parameter = match location.as_str() {
            "body" => {
                let body = BodyParameter { name, location, required, schema: value.get("schema").map(Schema::of) };
                Parameter { body: Some(body), other: None }
            }
            "path" => {
                let path = PathParameter { required, location, description, name, r#type, unique_items };
                Parameter { body: None, other: Some(NonBodyParameter { query: None, path: Some(path) }) }
            }
            _ => {
                let query = QueryParameter { location, description, name, r#type, unique_items };
                Parameter { body: None, other: Some(NonBodyParameter { query: Some(query), path: None }) }
            }
        };
        ParametersItem { parameter: Some(parameter) }
    }
}

impl Schemas {
    fn of(value: &Value, name: &str) -> Self {
        Schemas { named: members(value, name).map(|(name, schema)| NamedSchema { name, value: Some(Schema::of(schema)) }).collect() }
    }
}

impl Schema {
    fn of(value: &Value) -> Self {
        let number = |name: &str| value.get(name).and_then(Value::as_f64).unwrap_or_default();
        let whole = |name: &str| value.get(name).and_then(Value::as_i64).unwrap_or_default();
        let additional = value.get("additionalProperties").map(|of| match of.as_bool() {
            Some(boolean) => AdditionalProperties { schema: None, boolean: Some(boolean) },
            None => AdditionalProperties { schema: Some(Schema::of(of)), boolean: None },
        });
        Schema {
            reference: text(value, "$ref"),
            format: text(value, "format"),
            description: text(value, "description"),
            maximum: number("maximum"),
            minimum: number("minimum"),
            max_length: whole("maxLength"),
            min_length: whole("minLength"),
            pattern: text(value, "pattern"),
            max_items: whole("maxItems"),
            min_items: whole("minItems"),
            unique_items: flag(value, "uniqueItems"),
            required: texts(value, "required"),
            r#enum: list(value, "enum").map(any).collect(),
            additional_properties: additional.map(Box::new),
            r#type: value.get("type").and_then(Value::as_str).map(|t| Texts { value: vec![t.to_owned()] }),
            items: value.get("items").map(|of| Items { schema: vec![Schema::of(of)] }),
            all_of: list(value, "allOf").map(Schema::of).collect(),
            properties: value.get("properties").map(|_| Schemas::of(value, "properties")),
            vendor_extension: extensions(value),
        }
    }
}

//! From `pod x y`, `pod/x svc/y`, `pods,svc`, `all` and `-f` to objects (`k8s.io/cli-runtime/pkg/resource/builder.go`).
//!
//! Owns the grammar of resource arguments and fetching what they name. What is done with the objects is the commands' business.

use std::rc::Rc;

use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::Value;

use crate::app::Ctx;
use crate::client::Body;
use crate::discovery::{Kind, escape};
use crate::errors;
use crate::manifest::{self, Document, FileArgs, Validation};

/// The flags that choose objects by label or field.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SelectorArgs {
    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Selector (field query) to filter on, supports '=', '==', and '!='
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// If present, list the requested object(s) across all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// What to find.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Words: kinds and names.
    pub args: Vec<String>,
    /// Manifests.
    pub files: FileArgs,
    /// Label selector.
    pub selector: Option<String>,
    /// Field selector.
    pub field_selector: Option<String>,
    /// In every namespace.
    pub all_namespaces: bool,
    /// Every object of the kinds named.
    pub all: bool,
    /// Kinds alone mean every object, as in `get pods`.
    pub kinds_mean_all: bool,
    /// Objects of files are taken as written, not fetched.
    pub local: bool,
    /// Objects of files are taken as written, but their kinds are the server's.
    pub as_written: bool,
    /// The kind that bare names have, as in `describe`-less commands such as `cordon NAME`.
    pub default_kind: Option<&'static str>,
    /// A missing object is skipped.
    pub ignore_not_found: bool,
    /// Objects per request; zero asks for all at once.
    pub chunk_size: usize,
}

/// One thing to ask the server for.
#[derive(Clone, Debug)]
pub enum Target {
    /// An object by name.
    One {
        /// Its kind.
        kind: Rc<Kind>,
        /// Its namespace.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// The objects of a kind.
    List {
        /// Their kind.
        kind: Rc<Kind>,
        /// Their namespace, none for all.
        namespace: Option<String>,
    },
}

impl Target {
    /// The kind asked for.
    pub fn kind(&self) -> &Rc<Kind> {
        match self {
            Target::One { kind, .. } | Target::List { kind, .. } => kind,
        }
    }
}

/// An object and where it came from.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its kind.
    pub kind: Rc<Kind>,
    /// Its namespace, none when cluster-scoped.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The object.
    pub object: Value,
    /// The file it came from, empty when it came from the server.
    pub source: String,
}

impl Info {
    /// The URL path of the object.
    pub fn path(&self) -> String {
        self.kind.object(self.namespace.as_deref(), &self.name)
    }
    /// `deployment.apps/x`
    pub fn printed(&self) -> String {
        format!("{}/{}", self.kind.printed(), self.name)
    }
    /// Reads the object again.
    pub async fn fetch(&self, ctx: &Ctx) -> Result<Value> {
        ctx.client().await?.get(&self.path()).await
    }
    /// Patches the object and returns what the server made of it.
    pub async fn patch(&self, ctx: &Ctx, body: Body, patch: &Value, query: &str) -> Result<Value> {
        self.patch_subresource(ctx, "", body, patch, query).await
    }
    /// Patches the object or one of its subresources.
    pub async fn patch_subresource(&self, ctx: &Ctx, subresource: &str, body: Body, patch: &Value, query: &str) -> Result<Value> {
        let sub = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        let path = with_query(&format!("{}{sub}", self.path()), query);
        ctx.client().await?.json(Method::PATCH, &path, Some((body, serde_json::to_vec(patch)?))).await
    }
}

/// A path with its query, if there is one.
pub fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// `a=b&c=d`, escaped.
pub fn query_string(pairs: &[(&str, String)]) -> String {
    pairs.iter().map(|(k, v)| format!("{k}={}", escape(v))).collect::<Vec<_>>().join("&")
}

const MUST_PROVIDE: &str = "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'";

impl Query {
    /// Applies the selector flags.
    pub fn select(mut self, args: &SelectorArgs) -> Query {
        self.selector.clone_from(&args.selector);
        self.field_selector.clone_from(&args.field_selector);
        self.all_namespaces = args.all_namespaces;
        self
    }

    /// Whether labels or fields choose the objects.
    pub fn has_selector(&self) -> bool {
        let set = |s: &Option<String>| s.as_ref().is_some_and(|s| !s.is_empty());
        set(&self.selector) || set(&self.field_selector)
    }

    /// The query parameters of a list.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        if let Some(fields) = self.field_selector.as_ref().filter(|s| !s.is_empty()) {
            pairs.push(("fieldSelector", fields.clone()));
        }
        if let Some(labels) = self.selector.as_ref().filter(|s| !s.is_empty()) {
            pairs.push(("labelSelector", labels.clone()));
        }
        pairs
    }

    /// What the words ask for, without asking the server for objects.
    pub async fn targets(&self, ctx: &Ctx) -> Result<Vec<Target>> {
        let (kinds, names) = match self.args.split_first() {
            None => bail!("{MUST_PROVIDE}"),
            Some((first, _)) if first.contains('/') => return self.pairs(ctx).await,
            Some((name, [])) if self.default_kind.is_some() => (self.default_kind.unwrap_or_default().to_owned(), vec![name.clone()]),
            Some((_, rest)) if rest.iter().any(|a| a.contains('/')) => bail!(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kctl get resource/<resource_name>' instead of 'kctl get resource resource/<resource_name>'"
            ),
            Some((first, rest)) => (first.clone(), rest.to_vec()),
        };
        let kinds = self.kinds(ctx, &kinds).await?;
        let namespace = self.namespace(ctx)?;
        if names.is_empty() {
            if !self.kinds_mean_all && !self.all && !self.has_selector() {
                bail!("resource(s) were provided, but no name was specified");
            }
            return Ok(kinds.into_iter().map(|kind| Target::List { namespace: namespace.clone().filter(|_| kind.namespaced), kind }).collect());
        }
        if names.iter().any(String::is_empty) {
            bail!("resource name may not be empty");
        }
        if self.has_selector() {
            bail!("name cannot be provided when a selector is specified");
        }
        if self.all {
            bail!("setting 'all' parameter but found a non empty selector. ");
        }
        if self.all_namespaces && kinds.iter().any(|k| k.namespaced) {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        let one = |kind: &Rc<Kind>, name: &String| Target::One {
            kind: kind.clone(),
            namespace: namespace.clone().filter(|_| kind.namespaced),
            name: name.clone(),
        };
        Ok(kinds.iter().flat_map(|kind| names.iter().map(move |name| one(kind, name))).collect())
    }

    /// The namespace of lists and names: none means all.
    pub fn namespace(&self, ctx: &Ctx) -> Result<Option<String>> {
        Ok(if self.all_namespaces { None } else { Some(ctx.namespace()?) })
    }

    /// `pods,svc` and categories such as `all`.
    async fn kinds(&self, ctx: &Ctx, words: &str) -> Result<Vec<Rc<Kind>>> {
        let mut kinds: Vec<Rc<Kind>> = Vec::new();
        for word in words.split(',') {
            if word.is_empty() {
                return Err(crate::discovery::unknown(word));
            }
            let mut category = ctx.discovery().await?.category(word);
            if word == "everything" && category.is_empty() {
                category = ctx.discovery().await?.everything(self.all_namespaces);
            }
            let found = if category.is_empty() { vec![ctx.kind(word).await?] } else { category };
            for kind in found {
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
        }
        if kinds.is_empty() {
            bail!("{MUST_PROVIDE}");
        }
        Ok(kinds)
    }

    /// `pod/x svc/y`
    async fn pairs(&self, ctx: &Ctx) -> Result<Vec<Target>> {
        if self.has_selector() {
            bail!("selectors and the all flag cannot be used when passing resource/name arguments");
        }
        if self.all_namespaces {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        let mut targets = Vec::new();
        for word in &self.args {
            let parts: Vec<&str> = word.split('/').collect();
            let [kind, name] = parts.as_slice() else {
                match parts.len() {
                    1 => bail!(
                        "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kctl get resource/<resource_name>' instead of 'kctl get resource resource/<resource_name>'"
                    ),
                    _ => bail!("arguments in resource/name form may not have more than one slash"),
                }
            };
            if kind.is_empty() || name.is_empty() {
                bail!("arguments in resource/name form must have a single resource and name");
            }
            let kind = ctx.kind(kind).await?;
            let namespace = Some(ctx.namespace()?).filter(|_| kind.namespaced);
            targets.push(Target::One { kind, namespace, name: (*name).to_owned() });
        }
        Ok(targets)
    }

    /// Everything named, with what could not be had.
    pub async fn infos(&self, ctx: &Ctx) -> Result<(Vec<Info>, Vec<anyhow::Error>)> {
        if !self.files.is_empty() {
            if !self.args.is_empty() {
                bail!("when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well");
            }
            return self.from_files(ctx).await;
        }
        let mut infos = Vec::new();
        let mut failures = Vec::new();
        for target in self.targets(ctx).await? {
            match self.fetch(ctx, &target).await {
                Ok(found) => infos.extend(found),
                Err(error) if self.ignore_not_found && errors::is_not_found(&error) => {}
                Err(error) => failures.push(error),
            }
        }
        Ok((infos, failures))
    }

    /// The objects of one target.
    pub async fn fetch(&self, ctx: &Ctx, target: &Target) -> Result<Vec<Info>> {
        match target {
            Target::One { kind, namespace, name } => {
                let object = ctx.client().await?.get(&kind.object(namespace.as_deref(), name)).await?;
                Ok(vec![Info { kind: kind.clone(), namespace: namespace.clone(), name: name.clone(), object, source: String::new() }])
            }
            Target::List { kind, namespace } => {
                let list = list_all(ctx, &kind.collection(namespace.as_deref()), &self.parameters(), self.chunk_size).await;
                Ok(items_of(kind, list.map_err(|e| self.explain(kind, e))?))
            }
        }
    }

    /// Puts what was looked for in front of the server's words, as upstream does.
    pub fn explain(&self, kind: &Kind, error: anyhow::Error) -> anyhow::Error {
        let mut server = match error.downcast::<errors::ServerError>() {
            Ok(server) if matches!(server.reason(), "BadRequest" | "NotFound") => server,
            Ok(server) => return server.into(),
            Err(error) => return error,
        };
        let resource = format!("{}/{}, Resource={}", kind.group, kind.version, kind.plural);
        let (labels, fields) = (self.selector.as_deref().unwrap_or_default(), self.field_selector.as_deref().unwrap_or_default());
        let said = server.0.message.take().unwrap_or_default();
        server.0.message = Some(if labels.is_empty() && fields.is_empty() {
            format!("Unable to list {resource:?}: {said}")
        } else {
            format!("Unable to find {resource:?} that match label selector {labels:?}, field selector {fields:?}: {said}")
        });
        server.into()
    }

    async fn from_files(&self, ctx: &Ctx) -> Result<(Vec<Info>, Vec<anyhow::Error>)> {
        let mut infos = Vec::new();
        let mut failures = Vec::new();
        for document in manifest::read(&self.files, Validation::Ignore).await? {
            let info = match locate(ctx, document, self.local).await {
                Ok(info) => info,
                Err(error) => {
                    failures.push(error);
                    continue;
                }
            };
            if self.local || self.as_written {
                infos.push(info);
                continue;
            }
            match info.fetch(ctx).await {
                Ok(object) => infos.push(Info { object, ..info }),
                Err(error) if self.ignore_not_found && errors::is_not_found(&error) => {}
                Err(error) => failures.push(error),
            }
        }
        Ok((infos, failures))
    }
}

/// The objects of a list, each with its kind.
pub fn items_of(kind: &Rc<Kind>, mut list: Value) -> Vec<Info> {
    let items = list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let (api_version, name) = (kind.api_version(), kind.kind.clone());
    items
        .into_iter()
        .map(|mut object| {
            // Items of a typed list carry neither of these on the wire.
            object["apiVersion"] = Value::String(api_version.clone());
            object["kind"] = Value::String(name.clone());
            let metadata = &object["metadata"];
            let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
            Info {
                kind: kind.clone(),
                namespace: Some(text("namespace")).filter(|n| !n.is_empty()),
                name: text("name"),
                object,
                source: String::new(),
            }
        })
        .collect()
}

/// A whole list, page by page.
pub async fn list_all(ctx: &Ctx, path: &str, parameters: &[(&str, String)], chunk_size: usize) -> Result<Value> {
    let client = ctx.client().await?;
    let mut pairs = parameters.to_vec();
    if chunk_size > 0 {
        pairs.push(("limit", chunk_size.to_string()));
    }
    let mut list = client.get(&with_query(path, &query_string(&pairs))).await?;
    while let Some(token) = list["metadata"]["continue"].as_str().filter(|t| !t.is_empty()).map(ToOwned::to_owned) {
        let mut next_pairs = pairs.clone();
        next_pairs.push(("continue", token));
        let mut next = client.get(&with_query(path, &query_string(&next_pairs))).await?;
        let more = next.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        list["metadata"] = next["metadata"].take();
        if let Some(items) = list.get_mut("items").and_then(Value::as_array_mut) {
            items.extend(more);
        }
    }
    Ok(list)
}

/// Finds the kind and namespace of a manifest's object. With `local` no server is asked, and the kind is guessed from its name.
pub async fn locate(ctx: &Ctx, mut document: Document, local: bool) -> Result<Info> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind_name) = (text(&document.object["apiVersion"]), text(&document.object["kind"]));
    let name = text(&document.object["metadata"]["name"]);
    let own = Some(text(&document.object["metadata"]["namespace"])).filter(|n| !n.is_empty());
    let kind = if local {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        Rc::new(Kind::built_in(group, version, &kind_name, &format!("{}s", kind_name.to_lowercase()), own.is_some()))
    } else {
        match ctx.kind_of(&api_version, &kind_name).await? {
            Some(kind) => kind,
            None => bail!(
                "resource mapping not found for name: {name:?} namespace: {:?} from {:?}: no matches for kind {kind_name:?} in version {api_version:?}\nensure CRDs are installed first",
                own.clone().unwrap_or_default(),
                document.source
            ),
        }
    };
    let namespace = if kind.namespaced {
        let settings = ctx.settings()?;
        match own {
            Some(own) if settings.namespace_given && own != settings.namespace && !local => bail!(
                "the namespace from the provided object {own:?} does not match the namespace {:?}. You must pass '--namespace={own}' to perform this operation.",
                settings.namespace
            ),
            Some(own) => Some(own),
            None => {
                if !local && document.object["metadata"].is_object() {
                    document.object["metadata"]["namespace"] = Value::String(settings.namespace.clone());
                }
                Some(settings.namespace.clone())
            }
        }
    } else {
        None
    };
    Ok(Info { kind, namespace, name, object: document.object, source: document.source })
}

//! List, with pages that all belong to page one's revision (`k8s.io/apiserver/pkg/storage/cacher`, `pkg/storage/etcd3/store.go`).
//!
//! Pages come from memory: the cache undoes what has happened since. Where its history does not reach back, etcd's does, until it is
//! compacted.

use std::sync::Arc;

use shared::field;
use shared::selector::{FieldSelector, Selector};
use shared::status::{ApiError, GroupResource};

use super::continuation::Continuation;
use super::{ListOptions, Listed, Store, WAIT, errors, parse_resource_version};
use crate::cache::Entry;
use crate::registry::Resource;
use crate::storage::{StorageError, prefix_end};

const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
/// Keys read from etcd at a time.
const READ: i64 = 500;

/// From where, and as of when.
struct Start {
    /// `None`: now.
    at: Option<i64>,
    /// What follows the list's prefix in the first key.
    from: String,
    /// Whether a revision that is gone may be replaced by the present.
    exact: bool,
    /// Whether this is a later page.
    continued: bool,
}

impl Store {
    /// Objects of a kind, selected.
    ///
    /// # Errors
    /// 400 for bad options or a bad token; 410 when the token or resourceVersion is too old; 500 when an object cannot be read; 503 and
    /// 504 from etcd.
    pub async fn list(&self, resource: &'static Resource, options: &ListOptions) -> Result<Listed, ApiError> {
        validate(options)?;
        check_fields(resource, &options.fields)?;
        let start = self.start(options).await?;
        let prefix = if resource.namespaced && !options.namespace.is_empty() { format!("{}/", options.namespace) } else { String::new() };
        let (objects, revision) = match self.memory(resource, options, &start, &prefix)? {
            Some((objects, revision)) => (self.shown_all(resource, objects).await?, revision),
            None => self.disk(resource, options, &start, &prefix).await?,
        };
        let selects = Selects::new(resource, &options.labels, &options.fields);
        let mut items = Vec::with_capacity(if options.limit > 0 { options.limit.min(objects.len()) } else { objects.len() });
        let mut rest = objects.into_iter();
        let mut more = false;
        for entry in rest.by_ref() {
            if !selects.matches(&entry) {
                continue;
            }
            if options.limit > 0 && items.len() == options.limit {
                more = true;
                break;
            }
            items.push(entry);
        }
        let remaining = (more && selects.everything()).then(|| 1 + rest.len() as i64);
        let continue_token = items.last().filter(|_| more).map(|last| {
            let revision = (!start.continued || start.at.is_some()).then_some(revision);
            let key = resource.key(&last.namespace, &last.name);
            Continuation { revision, start: Continuation::after(&key[resource.prefix.len() + prefix.len()..]) }.encode()
        });
        Ok(Listed { revision, items, continue_token, remaining })
    }

    /// Waits for the revision of a continue token. One that etcd has not come to was never given out; one that only this server has
    /// not come to may be another server's.
    async fn reach_page(&self, revision: i64) -> Result<(), ApiError> {
        let Err(late) = self.inner.cache.wait_for(revision, WAIT).await else { return Ok(()) };
        if self.inner.storage.revision().await.is_ok_and(|newest| newest < revision) {
            return Err(ApiError::bad_request("invalid continue token: continue key is not valid: its resourceVersion is in the future"));
        }
        Err(errors::future_revision(late))
    }

    async fn start(&self, options: &ListOptions) -> Result<Start, ApiError> {
        let cache = &self.inner.cache;
        if !options.continue_token.is_empty() {
            let token = Continuation::decode(&options.continue_token)?;
            match token.revision {
                Some(revision) => self.reach_page(revision).await?,
                None => cache.catch_up(WAIT).await.map_err(errors::cache)?,
            }
            return Ok(Start { at: token.revision, from: token.start, exact: true, continued: true });
        }
        let version = parse_resource_version(&options.resource_version)?;
        self.reach(&options.resource_version).await?;
        // A limit with a resourceVersion has always meant that very one.
        let legacy = options.resource_version_match.is_empty() && options.limit > 0;
        let exact = version.is_some_and(|v| v > 0) && (legacy || options.resource_version_match == "Exact");
        Ok(Start { at: version.filter(|_| exact), from: String::new(), exact, continued: false })
    }

    /// From the cache; `None` when its history does not reach back.
    fn memory(
        &self,
        resource: &'static Resource,
        options: &ListOptions,
        start: &Start,
        prefix: &str,
    ) -> Result<Option<(Vec<Arc<Entry>>, i64)>, ApiError> {
        let cache = &self.inner.cache;
        let from = if start.from.is_empty() { String::new() } else { format!("{prefix}{}", start.from) };
        if let (None, "", Some(name)) = (start.at, from.as_str(), options.fields.required("metadata.name"))
            && (!resource.namespaced || !options.namespace.is_empty())
        {
            let revision = cache.revision();
            let found = cache.get(resource, &options.namespace, name).map_err(errors::undecodable)?;
            // What is newer than the revision would not belong to it.
            if found.as_ref().is_none_or(|e| e.revision <= revision) {
                return Ok(Some((found.into_iter().collect(), revision)));
            }
        }
        let snapshot = cache.snapshot(resource, &options.namespace, &from, start.at).map_err(errors::undecodable)?;
        if start.exact && start.at.is_some_and(|at| at != snapshot.revision) {
            return Ok(None);
        }
        Ok(Some((snapshot.objects, snapshot.revision)))
    }

    /// From etcd, as of an old revision.
    async fn disk(
        &self,
        resource: &'static Resource,
        options: &ListOptions,
        start: &Start,
        prefix: &str,
    ) -> Result<(Vec<Arc<Entry>>, i64), ApiError> {
        let revision = start.at.unwrap_or_default();
        let base = resource.prefix.as_str();
        let mut from = format!("{base}{prefix}{}", start.from).into_bytes();
        let end = prefix_end(&format!("{base}{prefix}"));
        let selects = Selects::new(resource, &options.labels, &options.fields);
        let (mut objects, mut selected) = (Vec::new(), 0);
        loop {
            let page = match self.inner.storage.range(&from, &end, revision, READ).await {
                Ok(page) => page,
                Err(StorageError::Compacted) => return Err(too_old(start)),
                Err(error) => return Err(errors::storage(error)),
            };
            let Some(last) = page.kvs.last() else { break };
            from = [last.key.as_bytes(), b"\0"].concat();
            for kv in page.kvs {
                let Some(current) = self.current(resource, Some(kv)).await? else { continue };
                selected += usize::from(selects.matches(&current.entry));
                objects.push(current.entry);
            }
            // One more than a page tells that there is another; the count of the rest needs all of them.
            if !page.more || (options.limit > 0 && selected > options.limit && !selects.everything()) {
                break;
            }
        }
        Ok((objects, revision))
    }
}

/// 410, with a token to go on with whatever there is now.
fn too_old(start: &Start) -> ApiError {
    if !start.continued {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    }
    let mut error = ApiError::expired(CONTINUE_TOO_OLD);
    error.0.metadata.continue_ = Some(Continuation { revision: None, start: start.from.clone() }.encode());
    error
}

/// Selectors against entries of a kind.
pub(super) struct Selects<'a> {
    resource: &'a Resource,
    labels: &'a Selector,
    fields: &'a FieldSelector,
}

impl<'a> Selects<'a> {
    pub(super) fn new(resource: &'a Resource, labels: &'a Selector, fields: &'a FieldSelector) -> Self {
        Selects { resource, labels, fields }
    }
    pub(super) fn everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
    pub(super) fn matches(&self, entry: &Entry) -> bool {
        self.everything() || (self.labels.matches(entry) && self.fields.matches(|path| entry.field(self.resource, path)))
    }
}

/// 400 for a field that the kind cannot be selected by.
pub(super) fn check_fields(resource: &Resource, fields: &FieldSelector) -> Result<(), ApiError> {
    let known = |path: &str| path == "metadata.name" || (path == "metadata.namespace" && resource.namespaced) || resource.fields.contains(&path);
    match fields.terms.iter().find(|(path, ..)| !known(path)) {
        Some((path, ..)) => Err(ApiError::bad_request(format!("field label not supported: {path}"))),
        None => Ok(()),
    }
}

/// `ValidateListOptions` of `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`.
fn validate(options: &ListOptions) -> Result<(), ApiError> {
    let path = field::Path::new("resourceVersionMatch");
    let given = options.resource_version_match.as_str();
    let mut errors = Vec::new();
    if !given.is_empty() {
        if options.resource_version.is_empty() {
            errors.push(field::Error::forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if !options.continue_token.is_empty() {
            errors.push(field::Error::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if given != "Exact" && given != "NotOlderThan" {
            errors.push(field::Error::not_supported(&path, given, &["Exact", "NotOlderThan"]));
        }
        if given == "Exact" && options.resource_version == "0" {
            let text = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(field::Error::forbidden(&path, text));
        }
    }
    if !errors.is_empty() {
        return Err(invalid_options(&errors));
    }
    if !options.continue_token.is_empty() && !options.resource_version.is_empty() && options.resource_version != "0" {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(())
}

pub(super) fn invalid_options(errors: &[field::Error]) -> ApiError {
    ApiError::invalid(GroupResource { group: "meta.k8s.io", resource: "ListOptions" }, "", errors)
}

//! The bootstrap's writes through the generic store, as the API server itself.

use async_trait::async_trait;
use shared::status::ApiError;

use super::Writer;
use crate::api::user::User;
use crate::registry::admit::AdmitAll;
use crate::registry::store::{Store, Tracking, WriteOptions};
use crate::registry::{Object, Resource};

/// Writes as upstream's server does through its own API.
fn options(user: &User) -> WriteOptions<'_> {
    WriteOptions { tracking: Tracking::Update, field_manager: "kube-apiserver".into(), ..WriteOptions::new(user) }
}

#[async_trait]
impl Writer for Store {
    async fn read(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Option<Object>, ApiError> {
        // The cache first: at most starts nothing is missing and etcd is not asked at all.
        let entry = match self.get(resource, namespace, name, "0").await {
            Err(error) if error.code() == 404 => match self.get(resource, namespace, name, "").await {
                Err(error) if error.code() == 404 => return Ok(None),
                other => other?,
            },
            other => other?,
        };
        resource.ops.decode(&entry.bytes).map(Some).map_err(ApiError::internal)
    }

    async fn create(&self, resource: &'static Resource, object: Object) -> Result<(), ApiError> {
        let (user, namespace) = (User::apiserver(), object.namespace().to_owned());
        Store::create(self, resource, &namespace, object, &options(&user), &AdmitAll).await.map(|_| ())
    }

    async fn update(&self, resource: &'static Resource, object: Object) -> Result<(), ApiError> {
        let (user, namespace, name) = (User::apiserver(), object.namespace().to_owned(), object.name().to_owned());
        // The object carries the resourceVersion it was read at, so a change in between is a conflict.
        let change = |_: Option<&crate::registry::store::Current>| Ok(object.clone().into());
        Store::update(self, resource, &namespace, &name, &options(&user), &change, &AdmitAll).await.map(|_| ())
    }
}

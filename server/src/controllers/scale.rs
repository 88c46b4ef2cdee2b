//! Where kinds are served, and whether they have a scale: what discovery says, asked once for each kind.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;
use kube::core::ApiResource;
use parking_lot::Mutex;

use super::Error;
use super::error::found;

/// A kind by its `apiVersion` and name.
type Kind = (String, String);

/// What is known of kinds so far.
pub struct Scales {
    client: Client,
    known: Mutex<BTreeMap<Kind, (ApiResource, bool)>>,
}

impl Scales {
    /// Nothing is known yet.
    pub fn new(client: Client) -> Self {
        Scales { client, known: Mutex::default() }
    }

    /// Where a kind is served, and whether it has a scale; `None` if it is not served.
    ///
    /// # Errors
    /// When discovery fails.
    pub async fn resource(&self, api_version: &str, kind: &str) -> Result<Option<(ApiResource, bool)>, Error> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let list = match api_version.split_once('/') {
            Some(_) => found(self.client.list_api_group_resources(api_version).await)?,
            None => found(self.client.list_core_api_resources(api_version).await)?,
        };
        let resource = list.as_ref().and_then(|list| scalable(list, api_version, kind));
        if let Some(resource) = &resource {
            self.known.lock().insert(key, resource.clone());
        }
        Ok(resource)
    }
}

fn scalable(list: &APIResourceList, api_version: &str, kind: &str) -> Option<(ApiResource, bool)> {
    let found = list.resources.iter().find(|r| r.kind == kind && !r.name.contains('/'))?;
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: found.name.clone(),
    };
    let scale = format!("{}/scale", found.name);
    Some((resource, list.resources.iter().any(|r| r.name == scale)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plurals_are_what_discovery_says() {
        let row = |name: &str, kind: &str| json!({ "name": name, "singularName": "", "kind": kind, "namespaced": true, "verbs": ["get"] });
        let list: APIResourceList = serde_json::from_value(json!({ "groupVersion": "x.io/v1",
            "resources": [row("oxen", "Ox"), row("oxen/scale", "Scale"), row("sheep", "Sheep")] }))
        .unwrap();
        let found = |kind: &str| scalable(&list, "x.io/v1", kind).map(|(r, scales)| (r.plural, scales));
        assert_eq!(found("Ox"), Some(("oxen".into(), true)));
        assert_eq!(found("Sheep"), Some(("sheep".into(), false)));
        assert_eq!(found("Scale"), None);
    }
}

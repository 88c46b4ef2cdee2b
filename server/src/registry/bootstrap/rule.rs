//! One rule a line: `verbs | groups | resources [| names]`, or `verbs | url | paths`; `core` is the group without a name.

use k8s_openapi::api::rbac::v1::PolicyRule;

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";

/// Sorted words; `read`, `write` and `core` stand for what they abbreviate.
fn words(field: &str) -> Vec<String> {
    let expanded = field.split_whitespace().flat_map(|word| match word {
        "read" => READ.split(' ').collect(),
        "write" => WRITE.split(' ').collect(),
        "core" => vec![""],
        other => vec![other],
    });
    let mut sorted: Vec<String> = expanded.map(str::to_owned).collect();
    sorted.sort_unstable();
    sorted
}

/// The rule a line stands for.
pub(super) fn parse(line: &str) -> PolicyRule {
    let fields: Vec<&str> = line.split('|').collect();
    match fields.as_slice() {
        [verbs, groups, paths] if groups.trim() == "url" => {
            PolicyRule { verbs: words(verbs), non_resource_urls: Some(words(paths)), ..PolicyRule::default() }
        }
        [verbs, groups, resources, names @ ..] => PolicyRule {
            verbs: words(verbs),
            api_groups: Some(words(groups)),
            resources: Some(words(resources)),
            resource_names: names.first().map(|n| words(n)),
            non_resource_urls: None,
        },
        _ => unreachable!("the role tables are checked by a test: {line}"),
    }
}

/// All rules of a table.
pub(super) fn parse_all(lines: &[&str]) -> Vec<PolicyRule> {
    lines.iter().map(|l| parse(l)).collect()
}

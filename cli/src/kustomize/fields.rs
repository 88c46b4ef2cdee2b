//! Places in objects: walks a path through maps and lists to whatever stands at its end. Pure.

use serde_json::{Value, json};

/// Calls a function with every value at the end of a path; lists on the way stand for each of their items.
///
/// With `create`, maps that are not there are made, but never a list: nothing could be said of its items.
pub fn visit(value: &mut Value, path: &[&str], create: bool, found: &mut dyn FnMut(&mut Value)) {
    if let Value::Array(items) = value {
        items.iter_mut().for_each(|item| visit(item, path, create, found));
        return;
    }
    let Some((first, rest)) = path.split_first() else { return found(value) };
    let (name, is_list) = first.strip_suffix("[]").map_or((*first, false), |name| (name, true));
    let there = value.get(name).is_some_and(|v| !v.is_null());
    if !there && (!create || is_list || !(value.is_object() || value.is_null())) {
        return;
    }
    if !there {
        value[name] = if rest.is_empty() { Value::Null } else { json!({}) };
    }
    visit(&mut value[name], rest, create, found);
}

/// Cuts `spec/template/spec` into its parts.
pub fn parts(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_walked_and_maps_are_made() {
        let mut object = json!({ "spec": { "items": [{ "name": "a" }, { "name": "b" }] } });
        let mut seen = Vec::new();
        visit(&mut object, &parts("spec/items/name"), false, &mut |v| seen.push(v.clone()));
        assert_eq!(seen, ["a", "b"]);
        visit(&mut object, &parts("spec/selector/matchLabels"), true, &mut |v| *v = json!({ "x": "y" }));
        visit(&mut object, &parts("spec/absent[]/name"), true, &mut |v| *v = json!("never"));
        visit(&mut object, &parts("spec/missing/name"), false, &mut |v| *v = json!("never"));
        assert_eq!(object["spec"]["selector"], json!({ "matchLabels": { "x": "y" } }));
        assert_eq!(object["spec"].as_object().map(|m| m.len()), Some(2));
    }
}

//! A test that the modules keep to their direction: `api → registry → storage → cache → (API) → informers → components`.

use std::path::{Path, PathBuf};

/// (modules, what their sources may not import from this crate)
const FORBIDDEN: &[(&[&str], &[&str])] = &[
    // The components know nothing but the public API.
    (
        &["controllers", "scheduler", "kubelet", "proxy", "dns", "informers.rs", "events.rs", "leader.rs"],
        &["api", "registry", "storage", "cache", "up"],
    ),
    // etcd's module interprets nothing.
    (&["storage"], &["api", "registry", "cache", "controllers", "scheduler", "kubelet", "proxy", "dns", "informers", "up"]),
    (&["cache"], &["api", "controllers", "scheduler", "kubelet", "proxy", "dns", "informers", "up"]),
    // The registry knows who asks, not how.
    (
        &["registry"],
        &["api::chain", "api::verbs", "api::listener", "api::admission", "controllers", "scheduler", "kubelet", "proxy", "dns", "informers", "up"],
    ),
    (&["api"], &["controllers", "scheduler", "kubelet", "proxy", "dns", "informers", "up"]),
    (&["pki"], &["registry", "storage", "cache", "controllers", "scheduler", "kubelet", "proxy", "dns", "informers", "up"]),
];

fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a readable source tree").flatten() {
            sources(&entry.path(), into);
        }
    } else if path.extension().is_some_and(|e| e == "rs") {
        into.push(path.to_owned());
    }
}

#[test]
fn no_module_imports_what_lies_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (modules, forbidden) in FORBIDDEN {
        for module in *modules {
            let mut files = Vec::new();
            sources(&root.join(module), &mut files);
            assert!(!files.is_empty(), "{module} has no sources: mend the list");
            for file in files {
                let text = std::fs::read_to_string(&file).expect("a readable source");
                for (number, line) in text.lines().enumerate() {
                    let imports = |target: &&str| {
                        let path = format!("crate::{target}");
                        line.split_once(&path).is_some_and(|(before, after)| {
                            !before.trim_start().starts_with("//") && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                        })
                    };
                    if let Some(target) = forbidden.iter().find(|t| imports(t)) {
                        wrong.push(format!("{}:{} imports {target}", file.strip_prefix(&root).unwrap_or(&file).display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! `/version`: which Kubernetes this speaks and which build it is.

use serde_json::{Value, json};

/// The Kubernetes version whose API this is, with our own as build metadata.
pub use crate::VERSION as GIT_VERSION;

/// The answer of `/version` (`k8s.io/apimachinery/pkg/version.Info`).
pub fn info() -> Value {
    let platform = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("KSERVER_COMMIT").unwrap_or_default(),
        "gitTreeState": if option_env!("KSERVER_COMMIT").is_some() { "clean" } else { "" },
        "buildDate": option_env!("KSERVER_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{platform}", std::env::consts::OS),
    })
}

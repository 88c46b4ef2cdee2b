//! Writes the node's CNI configuration once its pod range is known.
//!
//! The file is written in place: containerd does not notice one that is moved in from elsewhere.

use std::io;
use std::path::Path;

use serde_json::{Value, json};

/// The configuration: a bridge that routes without masquerading (the proxy does that), host ports, addresses from `range`.
pub fn conflist(bridge: &str, ranges: &[String], data: &Path) -> Value {
    let subnets: Vec<Value> = ranges.iter().map(|r| json!([{ "subnet": r }])).collect();
    let routes: Vec<Value> = ranges.iter().map(|r| json!({ "dst": if r.contains(':') { "::/0" } else { "0.0.0.0/0" } })).collect();
    json!({
        "cniVersion": "0.4.0",
        "name": bridge,
        "plugins": [
            {
                "type": "bridge", "bridge": bridge, "isGateway": true, "hairpinMode": true, "ipMasq": false,
                "ipam": { "type": "host-local", "dataDir": data, "ranges": subnets, "routes": routes },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// Writes the configuration; true if it has changed.
pub fn write(dir: &Path, bridge: &str, ranges: &[String], data: &Path) -> io::Result<bool> {
    let text = serde_json::to_string_pretty(&conflist(bridge, ranges, data))?;
    let path = dir.join("10-kserver.conflist");
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    std::fs::create_dir_all(dir)?;
    std::fs::write(path, text)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_gets_a_range_and_a_default_route() {
        let list = conflist("kb0", &["10.244.1.0/24".into(), "fd00:1::/64".into()], Path::new("/data"));
        let ipam = &list["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"][0][0]["subnet"], "10.244.1.0/24");
        assert_eq!(ipam["routes"][1]["dst"], "::/0");
        assert_eq!(list["plugins"][0]["ipMasq"], false);
    }
}

//! Preference for nodes that hold the pod's images (`pkg/scheduler/framework/plugins/imagelocality/image_locality.go`).

use super::*;

/// Below this many bytes an image does not count.
const LEAST: i64 = 23 << 20;
/// Above this many bytes a container it counts in full.
const MOST_PER_CONTAINER: i64 = 1000 << 20;

/// See the module.
pub struct ImageLocality;

/// Adds the tag that an image name without one stands for.
fn normalized(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score(&self, cycle: Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let spec = cycle.pod.spec()?;
        let images: Vec<String> =
            spec.init_containers.iter().flatten().chain(&spec.containers).filter_map(|c| c.image.as_deref()).map(normalized).collect();
        let states: Vec<_> = images.iter().map(|i| cycle.cluster.image(i)).collect();
        if states.iter().all(|s| s.nodes == 0) {
            return None;
        }
        let total = cycle.cluster.nodes().count().max(1) as f64;
        let most = MOST_PER_CONTAINER * images.len().max(1) as i64;
        let one = |node: &NodeInfo| {
            let held = node.node.as_ref().and_then(|n| n.status.as_ref()).and_then(|s| s.images.as_ref());
            let holds = |name: &String| held.into_iter().flatten().any(|i| i.names.iter().flatten().any(|n| n == name));
            let sum: i64 = images
                .iter()
                .zip(&states)
                .filter(|(i, s)| s.nodes > 0 && holds(i))
                .map(|(_, s)| (s.size as f64 * (s.nodes as f64 / total)) as i64)
                .sum();
            (sum.clamp(LEAST, most) - LEAST) * MAX_SCORE / (most - LEAST)
        };
        Some(nodes.iter().map(|n| one(n)).collect())
    }
}

//! Removes images that nothing uses when the disk fills up (`pkg/kubelet/images/image_gc_manager.go`).
//!
//! Owns when each image was seen and used. Must never remove what could not be had again: the pause image, and images that were
//! imported and come from no registry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_cri::v1 as cri;

use crate::events::Kind;
use crate::kubelet::Kubelet;
use crate::kubelet::node::machine;

/// Use of the disk, in percent, at which images are removed (`imageGCHighThresholdPercent`).
const HIGH: i64 = 85;
/// Use of the disk, in percent, down to which they are (`imageGCLowThresholdPercent`).
const LOW: i64 = 80;
/// An image is kept for this long, so that what was pulled for a container is there when it starts (`imageMinimumGCAge`).
const MIN_AGE: Duration = Duration::from_secs(120);
/// Time between looks (`ImageGCPeriod`).
const PERIOD: Duration = Duration::from_secs(300);

/// What is known of an image.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Instant,
    /// `None` if no container has used it since this kubelet started.
    used: Option<Instant>,
}

/// Looks at the disk for as long as it is polled.
pub async fn run(kubelet: Arc<Kubelet>) {
    let mut seen: HashMap<String, Seen> = HashMap::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = look(&kubelet, &mut seen).await {
            tracing::warn!(%error, "images not looked through");
        }
    }
}

async fn look(kubelet: &Kubelet, seen: &mut HashMap<String, Seen>) -> anyhow::Result<()> {
    let runtime = &kubelet.runtime;
    let (images, containers) = tokio::try_join!(runtime.list_images(), runtime.list_all_containers())?;
    let now = Instant::now();
    note(seen, &images, &used(&containers), now);
    let place = runtime.image_directory().await?.unwrap_or_else(|| kubelet.config.root_dir.clone());
    let Some(disk) = machine::disk(&place) else { return Ok(()) };
    let to_free = excess(disk.total, disk.available);
    if to_free <= 0 {
        return Ok(());
    }
    let mut freed = 0;
    for image in choose(&images, seen, &kubelet.config.pause_image, now) {
        if freed >= to_free {
            break;
        }
        match runtime.remove_image(&image.id).await {
            Ok(()) => {
                tracing::info!(image = %image.id, names = ?image.repo_tags, bytes = image.size, "removed an unused image: the disk fills up");
                freed += i64::try_from(image.size).unwrap_or(i64::MAX);
            }
            Err(error) => tracing::warn!(image = %image.id, %error, "image not removed"),
        }
    }
    if freed < to_free
        && let Some(node) = kubelet.nodes.get("", &kubelet.config.node_name)
    {
        let text = format!(
            "Failed to garbage collect required amount of images. Attempted to free {to_free} bytes, but only found {freed} bytes eligible to free."
        );
        kubelet.recorder.event(&*node, Kind::Warning, "FreeDiskSpaceFailed", text);
    }
    Ok(())
}

/// Bytes to be freed.
fn excess(total: i64, available: i64) -> i64 {
    let used = 100 - available / (total / 100).max(1);
    if used < HIGH { 0 } else { total / 100 * (100 - LOW) - available }
}

/// Everything by which containers, dead ones among them, name their images.
fn used(containers: &[cri::Container]) -> HashSet<&str> {
    let mut names = HashSet::new();
    for container in containers {
        names.extend([container.image_ref.as_str(), container.image_id.as_str()]);
        names.extend(container.image.as_ref().map(|i| i.image.as_str()));
    }
    names.remove("");
    names
}

fn note(seen: &mut HashMap<String, Seen>, images: &[cri::Image], used: &HashSet<&str>, now: Instant) {
    seen.retain(|id, _| images.iter().any(|i| i.id == *id));
    for image in images {
        let entry = seen.entry(image.id.clone()).or_insert(Seen { first: now, used: None });
        let mut names = std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
        if names.any(|name| used.contains(name.as_str())) {
            entry.used = Some(now);
        }
    }
}

/// What may be removed, the longest unused first, then the oldest.
fn choose<'a>(images: &'a [cri::Image], seen: &HashMap<String, Seen>, pause: &str, now: Instant) -> Vec<&'a cri::Image> {
    let mut free: Vec<(&cri::Image, Seen)> = images
        .iter()
        .filter(|i| !i.pinned && !i.repo_digests.is_empty() && !i.repo_tags.iter().any(|tag| tag == pause))
        .filter_map(|i| Some((i, *seen.get(&i.id)?)))
        .filter(|(_, s)| s.used != Some(now) && now.duration_since(s.first) >= MIN_AGE)
        .collect();
    free.sort_by_key(|(_, s)| (s.used, s.first));
    free.into_iter().map(|(image, _)| image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str, digest: &str) -> cri::Image {
        let list = |text: &str| if text.is_empty() { vec![] } else { vec![text.to_owned()] };
        cri::Image { id: id.into(), repo_tags: list(tag), repo_digests: list(digest), ..Default::default() }
    }

    #[test]
    fn the_disk_is_brought_from_the_high_mark_to_the_low_one() {
        for (available, expected) in [(500, 0), (160, 0), (150, 50), (0, 200)] {
            assert_eq!(excess(1000, available), expected, "{available}");
        }
    }

    #[test]
    fn unused_images_go_in_the_order_of_their_last_use_and_precious_ones_never() {
        let images = [
            image("a", "r/a:1", "r/a@x"),
            image("b", "r/b:1", "r/b@x"),
            image("c", "r/c:1", "r/c@x"),
            image("local", "x:1", ""),
            image("p", "pause:1", "d@x"),
        ];
        let start = Instant::now();
        let mut seen = HashMap::new();
        note(&mut seen, &images, &HashSet::from(["r/b:1", "c"]), start);
        let later = start + MIN_AGE;
        note(&mut seen, &images, &HashSet::from(["c"]), later);
        let ids = |now: Instant, seen: &HashMap<String, Seen>| choose(&images, seen, "pause:1", now).iter().map(|i| i.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(later, &seen), ["a", "b"]);
        note(&mut seen, &[], &HashSet::new(), later);
        note(&mut seen, &images, &HashSet::new(), later);
        assert!(ids(later, &seen).is_empty(), "all are new");
    }
}

//! How fast a size may follow what metrics ask for: stabilization windows and policies
//! (`pkg/controller/podautoscaler/horizontal.go`, `pkg/apis/autoscaling/v2/defaults.go`).
//!
//! Owns what was recommended and done of late. Time is in seconds and comes in with every call.

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// How long a larger recommendation holds a smaller one back, where the object does not say (`--horizontal-pod-autoscaler-downscale-stabilization`).
const DOWN_WINDOW: i64 = 300;

/// What has happened to one target.
#[derive(Debug, Default)]
pub(super) struct History {
    /// When a size was recommended.
    recommended: Vec<(i64, i32)>,
    /// When the size was changed, and by how much.
    changes: Vec<(i64, i32)>,
}

/// The size that may be set now, and whether something besides the metrics has decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub replicas: i32,
    /// An older recommendation counts more.
    pub stabilized: bool,
    /// `ScalingLimited`'s reason and message, when the size is not what was asked for.
    pub limited: Option<(&'static str, &'static str)>,
}

impl History {
    /// Narrows a recommendation to what rules and bounds allow.
    pub(super) fn allow(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        (least, most): (i32, i32),
        current: i32,
        recommended: i32,
        now: i64,
    ) -> Allowed {
        let (up, down) = (behavior.and_then(|b| b.scale_up.as_ref()), behavior.and_then(|b| b.scale_down.as_ref()));
        let window =
            |rules: Option<&HPAScalingRules>, otherwise: i64| rules.and_then(|r| r.stabilization_window_seconds).map_or(otherwise, i64::from);
        let (up_window, down_window) = (window(up, 0), window(down, DOWN_WINDOW));
        let longest = up_window.max(down_window);
        self.recommended.retain(|(at, _)| now - at < longest);
        self.changes.retain(|(at, _)| now - at < 3600);
        let within = |window: i64| self.recommended.iter().filter(move |(at, _)| now - at < window).map(|(_, size)| *size);
        // Up only as far as everything of late agreed to, down only as far as well.
        let ceiling = within(up_window).fold(recommended, i32::min);
        let floor = within(down_window).fold(recommended, i32::max);
        let stable = current.max(ceiling).min(floor);
        self.recommended.push((now, recommended));
        let stabilized = stable != recommended;
        let (low, high) = (self.lowest(down, current, now), self.highest(up, current, now));
        let allowed = stable.clamp(low.min(current), high.max(current)).clamp(least, most.max(least));
        let limited = if stable < least {
            Some(("TooFewReplicas", "the desired replica count is less than the minimum replica count"))
        } else if stable > most {
            Some(("TooManyReplicas", "the desired replica count is more than the maximum replica count"))
        } else if allowed < stable {
            Some(("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"))
        } else if allowed > stable {
            Some(("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"))
        } else {
            None
        };
        Allowed { replicas: allowed, stabilized, limited }
    }

    /// The size was changed.
    pub(super) fn changed(&mut self, by: i32, now: i64) {
        self.changes.push((now, by));
    }

    /// By how much the size went up (or down) in the last seconds.
    fn moved(&self, up: bool, seconds: i64, now: i64) -> i32 {
        self.changes.iter().filter(|(at, by)| now - at < seconds && (*by > 0) == up).map(|(_, by)| by.abs()).sum()
    }

    fn highest(&self, rules: Option<&HPAScalingRules>, current: i32, now: i64) -> i32 {
        let policies = policies(rules, &[("Pods", 4, 15), ("Percent", 100, 15)]);
        let reach = |(kind, value, period): &(String, i32, i64)| {
            let start = current - self.moved(true, *period, now);
            if kind == "Pods" { start.saturating_add(*value) } else { (f64::from(start) * (1.0 + f64::from(*value) / 100.0)).ceil() as i32 }
        };
        choose(rules, policies.iter().map(reach), i32::MIN, true).unwrap_or(current)
    }

    fn lowest(&self, rules: Option<&HPAScalingRules>, current: i32, now: i64) -> i32 {
        let policies = policies(rules, &[("Percent", 100, 15)]);
        let reach = |(kind, value, period): &(String, i32, i64)| {
            let start = current + self.moved(false, *period, now);
            if kind == "Pods" { start - value } else { (f64::from(start) * (1.0 - f64::from(*value) / 100.0)) as i32 }
        };
        choose(rules, policies.iter().map(reach), i32::MAX, false).unwrap_or(current)
    }
}

fn policies(rules: Option<&HPAScalingRules>, otherwise: &[(&str, i32, i64)]) -> Vec<(String, i32, i64)> {
    match rules.and_then(|r| r.policies.as_ref()).filter(|p| !p.is_empty()) {
        Some(given) => given.iter().map(|p| (p.type_.clone(), p.value, i64::from(p.period_seconds))).collect(),
        None => otherwise.iter().map(|(kind, value, period)| ((*kind).to_owned(), *value, *period)).collect(),
    }
}

/// What the rules choose among their policies' limits; nothing when they forbid the direction.
fn choose(rules: Option<&HPAScalingRules>, limits: impl Iterator<Item = i32>, start: i32, up: bool) -> Option<i32> {
    let select = rules.and_then(|r| r.select_policy.as_deref()).unwrap_or("Max");
    if select == "Disabled" {
        return None;
    }
    // The largest change, or with `Min` the smallest.
    let widest = (select == "Max") == up;
    let limits: Vec<i32> = limits.collect();
    if limits.is_empty() {
        return Some(start);
    }
    if widest { limits.into_iter().max() } else { limits.into_iter().min() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn behavior(value: serde_json::Value) -> HorizontalPodAutoscalerBehavior {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn growing_is_quick_and_shrinking_waits() {
        let mut history = History::default();
        let grown = history.allow(None, (1, 20), 2, 10, 0);
        assert_eq!((grown.replicas, grown.limited.map(|l| l.0)), (6, Some("ScaleUpLimit")), "four pods or twice as many in 15 s");
        history.changed(4, 0);
        assert_eq!(history.allow(None, (1, 20), 6, 10, 15).replicas, 10);
        history.changed(4, 15);
        let held = history.allow(None, (1, 20), 10, 1, 60);
        assert_eq!((held.replicas, held.stabilized), (10, true), "a larger recommendation was made within five minutes");
        assert_eq!(history.allow(None, (1, 20), 10, 1, 400).replicas, 1);
    }

    #[test]
    fn bounds_are_named_when_they_decide() {
        let limited = |recommended| History::default().allow(None, (2, 5), 3, recommended, 0);
        assert_eq!((limited(9).replicas, limited(9).limited.map(|l| l.0)), (5, Some("TooManyReplicas")));
        let mut patient = History::default();
        let rules = behavior(json!({"scaleDown": {"stabilizationWindowSeconds": 0}}));
        let few = patient.allow(Some(&rules), (2, 5), 3, 1, 0);
        assert_eq!((few.replicas, few.limited.map(|l| l.0)), (2, Some("TooFewReplicas")));
        assert_eq!(limited(4).limited, None);
    }

    #[test]
    fn policies_limit_each_period() {
        let rules = behavior(json!({
            "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}], "selectPolicy": "Min"}
        }));
        let mut history = History::default();
        assert_eq!(history.allow(Some(&rules), (1, 50), 10, 20, 0).replicas, 11);
        history.changed(1, 0);
        assert_eq!(history.allow(Some(&rules), (1, 50), 11, 20, 30).replicas, 11, "one a minute");
        assert_eq!(history.allow(Some(&rules), (1, 50), 10, 1, 100).replicas, 9, "a tenth a minute");
        let never = behavior(json!({"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}}));
        assert_eq!(History::default().allow(Some(&never), (1, 50), 10, 1, 0).replicas, 10);
    }
}

//! Rollout arithmetic: how big each ReplicaSet may be at the next step (`pkg/controller/deployment/rolling.go`,
//! `util/deployment_util.go`). Pure.
//!
//! Two promises at every step: never more pods than desired + surge are asked for, and no available pod is taken away below
//! desired - unavailable.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A ReplicaSet as far as rollouts care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Pods it asks for.
    pub replicas: i32,
    /// Pods it has that are available.
    pub available: i32,
}

/// What a deployment allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pods wanted.
    pub desired: i32,
    /// Pods above that while rolling.
    pub surge: i32,
    /// Pods below that while rolling.
    pub unavailable: i32,
}

impl Limits {
    /// Limits of a rolling update; without values there is none of either, and one pod may then be missing so that anything moves.
    pub fn rolling(desired: i32, surge: Option<&IntOrString>, unavailable: Option<&IntOrString>) -> Self {
        let surge = scaled(surge, desired, true);
        let mut unavailable = scaled(unavailable, desired, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Limits { desired, surge, unavailable: unavailable.min(desired) }
    }

    /// Limits of any other strategy.
    pub fn strict(desired: i32) -> Self {
        Limits { desired, surge: 0, unavailable: 0 }
    }

    /// The most pods there may be.
    pub fn most(&self) -> i32 {
        self.desired.saturating_add(self.surge)
    }

    /// The fewest available pods there may be.
    pub fn fewest(&self) -> i32 {
        self.desired - self.unavailable
    }
}

/// A number, or a percentage of `total` rounded up or down.
pub fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(text)) => {
            let Some(percent) = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()) else { return 0 };
            let product = percent * i64::from(total);
            let value = if up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(value).unwrap_or(i32::MAX)
        }
    }
}

/// How big the new set may be when all sets together ask for `total` pods (`NewRSNewReplicas`).
pub fn new_size(limits: &Limits, new: i32, total: i32) -> i32 {
    if total >= limits.most() {
        return new;
    }
    new + (limits.most() - total).min(limits.desired - new)
}

/// How big each old set, oldest first, may be: unavailable pods go first, then as many available ones as can be spared.
pub fn old_sizes(limits: &Limits, new: Size, old: &[Size]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|s| s.replicas).collect();
    let total: i32 = new.replicas + sizes.iter().sum::<i32>();
    let new_unavailable = new.replicas - new.available;
    let most_down = total - limits.fewest() - new_unavailable;
    if most_down <= 0 {
        return sizes;
    }
    let mut down = 0;
    for (size, set) in sizes.iter_mut().zip(old) {
        if down >= most_down {
            break;
        }
        let unhealthy = (set.replicas - set.available).max(0).min(most_down - down);
        *size -= unhealthy;
        down += unhealthy;
    }
    let available: i32 = new.available + old.iter().map(|s| s.available).sum::<i32>();
    let mut spare = available - limits.fewest();
    for size in &mut sizes {
        if spare <= 0 {
            break;
        }
        let taken = (*size).min(spare);
        *size -= taken;
        spare -= taken;
    }
    sizes
}

/// A set in proportional scaling.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Pods it asks for.
    pub replicas: i32,
    /// The deployment's limit when it was last scaled, from the `max-replicas` annotation.
    pub most_before: Option<i32>,
}

/// Spreads a change of the deployment's size over its sets, which come in the order in which leftovers are given (newest first when
/// growing, oldest first when shrinking; both by size before that). `status_replicas` stands in for a missing annotation.
pub fn proportional(limits: &Limits, status_replicas: i32, shares: &[Share]) -> Vec<i32> {
    let total: i32 = shares.iter().map(|s| s.replicas).sum();
    let allowed = if limits.desired > 0 { limits.most() } else { 0 };
    let to_add = allowed - total;
    let mut added = 0;
    let mut sizes: Vec<i32> = shares
        .iter()
        .map(|share| {
            let proportion = proportion(limits, status_replicas, share, to_add, added);
            added += proportion;
            share.replicas + proportion
        })
        .collect();
    if to_add != 0
        && let Some(first) = sizes.first_mut()
    {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

fn proportion(limits: &Limits, status_replicas: i32, share: &Share, to_add: i32, added: i32) -> i32 {
    if share.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = if limits.desired == 0 {
        -share.replicas
    } else {
        let before = share.most_before.filter(|n| *n != 0).unwrap_or(status_replicas);
        if before == 0 {
            0
        } else {
            let exact = f64::from(share.replicas) * f64::from(limits.most()) / f64::from(before);
            // Rounded as Go rounds: half away from zero.
            (exact.round() as i32).saturating_sub(share.replicas)
        }
    };
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(text: &str) -> IntOrString {
        IntOrString::String(text.into())
    }

    #[test]
    fn limits_round_surge_up_and_unavailable_down() {
        for (desired, surge, unavailable, expected) in [
            (10, percent("25%"), percent("25%"), (3, 2)),
            (1, percent("25%"), percent("25%"), (1, 0)),
            (4, IntOrString::Int(0), percent("10%"), (0, 1)),
            (3, IntOrString::Int(2), IntOrString::Int(9), (2, 3)),
            (0, percent("25%"), percent("25%"), (0, 0)),
            (10, percent("100%"), IntOrString::Int(0), (10, 0)),
        ] {
            let limits = Limits::rolling(desired, Some(&surge), Some(&unavailable));
            assert_eq!((limits.surge, limits.unavailable), expected, "{desired} {surge:?} {unavailable:?}");
        }
    }

    #[test]
    fn the_new_set_grows_into_the_surge() {
        for (desired, surge, new, total, expected) in
            [(10, 2, 0, 10, 2), (10, 2, 2, 12, 2), (10, 2, 2, 10, 4), (10, 0, 0, 10, 0), (10, 20, 0, 10, 10), (3, 1, 0, 0, 3)]
        {
            assert_eq!(new_size(&Limits { desired, surge, unavailable: 0 }, new, total), expected);
        }
    }

    #[test]
    fn old_sets_lose_their_unavailable_pods_first() {
        let limits = Limits { desired: 10, surge: 2, unavailable: 2 };
        let size = |replicas, available| Size { replicas, available };
        for (new, old, expected) in [
            (size(2, 0), vec![size(10, 10)], vec![8]),
            (size(2, 2), vec![size(10, 10)], vec![6]),
            (size(2, 0), vec![size(5, 0), size(5, 5)], vec![3, 5]),
            (size(10, 10), vec![size(1, 1), size(1, 0)], vec![0, 0]),
            (size(4, 0), vec![size(8, 8)], vec![8]),
        ] {
            assert_eq!(old_sizes(&limits, new, &old), expected, "{new:?} {old:?}");
        }
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_keeps_proportions() {
        let share = |replicas, most_before| Share { replicas, most_before: Some(most_before) };
        let limits = |desired, surge| Limits { desired, surge, unavailable: 0 };
        for (limits, shares, expected) in [
            (limits(12, 0), vec![share(5, 10), share(5, 10)], vec![6, 6]),
            (limits(15, 3), vec![share(8, 13), share(5, 13)], vec![11, 7]),
            (limits(6, 0), vec![share(5, 10), share(5, 10)], vec![3, 3]),
            (limits(0, 0), vec![share(5, 10), share(5, 10)], vec![0, 0]),
            (limits(10, 0), vec![share(5, 10), share(5, 10)], vec![5, 5]),
        ] {
            assert_eq!(proportional(&limits, 10, &shares), expected, "{limits:?} {shares:?}");
        }
    }

    /// Pods become available or not as chance has it; then both sides take a step.
    fn simulate(limits: Limits, start: Vec<(i32, i32)>, chances: &[u8]) -> Result<(), TestCaseError> {
        let mut old: Vec<Size> = start.iter().map(|(r, a)| Size { replicas: *r, available: (*a).min(*r) }).collect();
        let mut new = Size::default();
        let mut available_before;
        for step in 0..400 {
            let chance = |i: usize| chances.get((step + i) % chances.len().max(1)).copied().unwrap_or(255);
            for (i, set) in old.iter_mut().chain([&mut new]).enumerate() {
                // After a while everything is healthy, or nothing could converge.
                if step > 100 || chance(i) > 100 {
                    set.available = set.replicas;
                }
            }
            let total = new.replicas + old.iter().map(|s| s.replicas).sum::<i32>();
            available_before = new.available + old.iter().map(|s| s.available).sum::<i32>();
            let grown = new_size(&limits, new.replicas, total);
            if grown != new.replicas {
                prop_assert!(grown <= limits.desired && total - new.replicas + grown <= limits.most().max(total));
                new.replicas = grown;
                continue;
            }
            let sizes = old_sizes(&limits, new, &old);
            for (set, size) in old.iter_mut().zip(&sizes) {
                prop_assert!(*size >= 0 && *size <= set.replicas);
                // The ReplicaSet controller takes unready pods first.
                set.available = set.available.min(*size);
                set.replicas = *size;
            }
            let available = new.available + old.iter().map(|s| s.available).sum::<i32>();
            prop_assert!(available >= limits.fewest().min(available_before), "{} < {}", available, limits.fewest());
            if new.replicas == limits.desired && old.iter().all(|s| s.replicas == 0) {
                return Ok(());
            }
        }
        Err(TestCaseError::fail(format!("no convergence: {limits:?} {new:?} {old:?}")))
    }

    proptest! {
        #[test]
        fn a_rollout_converges_and_keeps_its_promises(
            desired in 0..40i32,
            surge in 0..10i32,
            unavailable in 0..10i32,
            old in proptest::collection::vec((0..20i32, 0..20i32), 0..4),
            chances in proptest::collection::vec(any::<u8>(), 1..50),
        ) {
            let limits = Limits::rolling(desired, Some(&IntOrString::Int(surge)), Some(&IntOrString::Int(unavailable)));
            simulate(limits, old, &chances)?;
        }

        #[test]
        fn proportional_scaling_reaches_the_allowed_total(
            desired in 1..50i32, surge in 0..10i32, shares in proptest::collection::vec(1..30i32, 1..5)
        ) {
            let limits = Limits { desired, surge, unavailable: 0 };
            let total: i32 = shares.iter().sum();
            let shares: Vec<_> = shares.iter().map(|r| Share { replicas: *r, most_before: Some(total) }).collect();
            let sizes = proportional(&limits, total, &shares);
            prop_assert!(sizes.iter().all(|s| *s >= 0));
            if total <= limits.most() {
                prop_assert_eq!(sizes.iter().sum::<i32>(), limits.most());
            }
        }
    }
}

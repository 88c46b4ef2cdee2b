//! Preference for nodes whose CPU and memory would be used alike
//! (`pkg/scheduler/framework/plugins/noderesources/balanced_allocation.go`).

use super::*;

/// See the module.
pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score(&self, cycle: Cycle<'_>, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let add = &cycle.pod.requests;
        if add.milli_cpu == 0 && add.memory == 0 {
            return None;
        }
        let fraction = |allocatable: i64, requested: i64| (allocatable > 0).then(|| (requested as f64 / allocatable as f64).min(1.0));
        let one = |node: &NodeInfo| {
            let cpu = fraction(node.allocatable.milli_cpu, node.requested.milli_cpu + add.milli_cpu);
            let memory = fraction(node.allocatable.memory, node.requested.memory + add.memory);
            // The standard deviation of two values is half their distance.
            let deviation = match (cpu, memory) {
                (Some(a), Some(b)) => (a - b).abs() / 2.0,
                _ => 0.0,
            };
            ((1.0 - deviation) * MAX_SCORE as f64) as i64
        };
        Some(nodes.iter().map(|n| one(n)).collect())
    }
}

//! Kubernetes' list functions (`k8s.io/apiserver/pkg/cel/library/lists.go`), cel-go's `ext/lists.go` and `ext/sets.go`.

use std::cmp::Ordering;

use super::{Function, Result, charge_items, charge_search, no_overload};
use crate::cel::value::{Value, compare};
use crate::cel::{Budget, EvalError};

/// More than this a range may not have; the budget would not allow using it.
const RANGE: i64 = 1_000_000;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "isSorted" => |b, a| {
            let items = list(b, a)?;
            for pair in items.windows(2) {
                if compare(&pair[0], &pair[1]).ok_or_else(EvalError::no_overload)?.is_gt() {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        },
        "sum" => sum,
        "min" => |b, a| extreme(b, a, "min", Ordering::Less),
        "max" => |b, a| extreme(b, a, "max", Ordering::Greater),
        "slice" => |b, a| match a {
            [Value::List(items), Value::Int(start), Value::Int(end)] => {
                charge_items(b, items.len())?;
                if *start < 0 || *end < 0 {
                    return Err(EvalError::new(format!("cannot slice({start}, {end}), negative indexes not supported")));
                }
                if start > end {
                    return Err(EvalError::new(format!("cannot slice({start}, {end}), start index must be less than or equal to end index")));
                }
                let part = items.get(*start as usize..*end as usize);
                part.map(|p| p.to_vec().into()).ok_or_else(|| EvalError::new(format!("cannot slice({start}, {end}), list is length {}", items.len())))
            }
            _ => no_overload(),
        },
        "flatten" => |b, a| match a {
            [Value::List(items)] => flatten(b, items, 1).map(Value::from),
            [Value::List(items), Value::Int(depth)] if *depth >= 0 => flatten(b, items, *depth).map(Value::from),
            [Value::List(_), Value::Int(_)] => Err(EvalError::new("flatten depth must be non-negative")),
            _ => no_overload(),
        },
        "distinct" => |b, a| {
            let items = list(b, a)?;
            let mut out: Vec<Value> = Vec::new();
            for item in items {
                charge_search(b, &out, item)?;
                if !out.contains(item) {
                    out.push(item.clone());
                }
            }
            Ok(out.into())
        },
        "sort" => |b, a| {
            let mut items = list(b, a)?.to_vec();
            if items.windows(2).any(|p| compare(&p[0], &p[1]).is_none()) {
                return no_overload();
            }
            items.sort_by(|x, y| compare(x, y).unwrap_or(Ordering::Equal));
            Ok(items.into())
        },
        "lists.range" => |b, a| match a {
            [Value::Int(n)] if *n > RANGE => b.charge(u64::MAX).map(|()| Value::Null),
            [Value::Int(n)] => {
                charge_items(b, (*n).max(0) as usize)?;
                Ok((0..*n).map(Value::Int).collect::<Vec<_>>().into())
            }
            _ => no_overload(),
        },
        "sets.contains" => |b, a| sets(b, a, |x, y| y.iter().all(|e| x.contains(e))),
        "sets.intersects" => |b, a| sets(b, a, |x, y| y.iter().any(|e| x.contains(e))),
        "sets.equivalent" => |b, a| sets(b, a, |x, y| y.iter().all(|e| x.contains(e)) && x.iter().all(|e| y.contains(e))),
        _ => return None,
    })
}

fn list<'a>(budget: &Budget, args: &'a [Value]) -> Result<&'a [Value]> {
    let [Value::List(items)] = args else { return no_overload() };
    charge_items(budget, items.len())?;
    Ok(items)
}

fn sum(budget: &Budget, args: &[Value]) -> Result {
    let items = list(budget, args)?;
    let overflow = || EvalError::new("integer overflow");
    let mut total = match items.first() {
        // Nothing is known of an empty list's type but here, where it makes no difference.
        None => return Ok(Value::Int(0)),
        Some(first) => first.clone(),
    };
    for item in &items[1..] {
        total = match (&total, item) {
            (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(overflow)?),
            (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(|| EvalError::new("unsigned integer overflow"))?),
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(*b).ok_or_else(overflow)?),
            _ => return no_overload(),
        };
    }
    Ok(total)
}

fn extreme(budget: &Budget, args: &[Value], name: &str, wanted: Ordering) -> Result {
    let items = list(budget, args)?;
    let Some(mut best) = items.first() else { return Err(EvalError::new(format!("{name} called on empty list"))) };
    for item in &items[1..] {
        if compare(item, best).ok_or_else(EvalError::no_overload)? == wanted {
            best = item;
        }
    }
    Ok(best.clone())
}

pub(super) fn index_of(budget: &Budget, args: &[Value]) -> Result {
    let [Value::List(items), wanted] = args else { return no_overload() };
    charge_search(budget, items, wanted)?;
    Ok(Value::Int(items.iter().position(|i| i == wanted).map_or(-1, |at| at as i64)))
}

pub(super) fn last_index_of(budget: &Budget, args: &[Value]) -> Result {
    let [Value::List(items), wanted] = args else { return no_overload() };
    charge_search(budget, items, wanted)?;
    Ok(Value::Int(items.iter().rposition(|i| i == wanted).map_or(-1, |at| at as i64)))
}

pub(super) fn reverse(budget: &Budget, args: &[Value]) -> Result {
    Ok(list(budget, args)?.iter().rev().cloned().collect::<Vec<_>>().into())
}

fn flatten(budget: &Budget, items: &[Value], depth: i64) -> Result<Vec<Value>> {
    charge_items(budget, items.len())?;
    let mut out = Vec::new();
    for item in items {
        match item {
            Value::List(inner) if depth > 0 => out.extend(flatten(budget, inner, depth - 1)?),
            other => out.push(other.clone()),
        }
    }
    Ok(out)
}

fn sets(budget: &Budget, args: &[Value], holds: fn(&[Value], &[Value]) -> bool) -> Result {
    let [Value::List(a), Value::List(b)] = args else { return no_overload() };
    // Both ways, for what makes two lists the same set.
    b.iter().try_for_each(|item| charge_search(budget, a, item))?;
    Ok(Value::Bool(holds(a, b)))
}

//! The numbers to reach, from `bench/budgets.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;

const BUDGETS: &str = include_str!("../budgets.json");

/// The largest acceptable value of a measured number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) max: f64,
    pub(crate) why: String,
}

/// A measured number beside its budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Judgement {
    pub(crate) id: String,
    pub(crate) value: f64,
    pub(crate) max: f64,
    pub(crate) met: bool,
    pub(crate) why: String,
}

/// All budgets by the name of the number.
pub(crate) type Budgets = BTreeMap<String, Budget>;

/// Reads the table that is compiled in.
pub(crate) fn load() -> Result<Budgets, BenchError> {
    serde_json::from_str(BUDGETS).map_err(|e| BenchError::json("bench/budgets.json", e))
}

/// Compares each measured number that has a budget with it.
pub(crate) fn judge(budgets: &Budgets, measured: &BTreeMap<String, f64>) -> Vec<Judgement> {
    measured
        .iter()
        .filter_map(|(id, value)| {
            let budget = budgets.get(id)?;
            Some(Judgement {
                id: id.clone(),
                value: *value,
                max: budget.max,
                met: *value <= budget.max,
                why: budget.why.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_above_its_budget_is_a_miss_and_one_without_a_budget_is_not_judged() {
        let budgets = Budgets::from([("a".to_owned(), Budget { max: 5.0, why: String::new() })]);
        let met = |value| {
            let measured = BTreeMap::from([("a".to_owned(), value), ("b".to_owned(), 9.0)]);
            judge(&budgets, &measured).iter().map(|j| j.met).collect::<Vec<_>>()
        };
        assert_eq!((met(5.0), met(5.1)), (vec![true], vec![false]));
    }

    #[test]
    fn every_budget_belongs_to_a_number_that_is_measured() {
        let mut measured: Vec<String> = crate::exec::row_ids();
        measured.extend(crate::gate::NUMBERS.iter().map(|id| (*id).to_owned()));
        measured.extend(crate::policy::NUMBERS.iter().map(|id| (*id).to_owned()));
        measured.push(crate::signal::RUNS_1000_MS.to_owned());
        measured.extend(crate::evidence::NUMBERS.iter().map(|id| (*id).to_owned()));
        measured.extend(crate::regress::NUMBERS.iter().map(|id| (*id).to_owned()));
        for id in load().unwrap().keys() {
            assert!(measured.contains(id), "{id} is a budget of nothing");
        }
    }
}

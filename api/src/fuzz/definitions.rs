//! Pure: no I/O, no clock, no async.
//!
//! Bodies of `PUT /v1/metrics/definitions/{name}` as the query API checks them: against the metrics that there are.

use neonhub_schemas::metric::{Definition, DefinitionText};

use crate::catalog::Catalog;
use crate::extract::parse;

pub(super) fn check(bytes: &[u8]) {
    let text = match parse::<DefinitionText>(bytes) {
        Ok(text) => text,
        Err(problem) => {
            assert_eq!((problem.status.as_u16(), problem.field.is_some()), (400, true), "{problem:?}");
            return;
        }
    };
    let Ok(Definition::Derived(expression)) = text.check() else { return };
    let catalog = Catalog::new(&[]);
    match catalog.check_derived("mine", &expression) {
        Ok(()) => assert!(expression.metrics().iter().all(|name| catalog.get(name).is_some())),
        Err(problem) => assert_eq!(problem.status.as_u16(), 400, "{problem:?}"),
    }
}

//! The OpenAPI document: every operation declares its problems, every reference leads somewhere.

use serde_json::Value;

use crate::rig::Rig;

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_operation_declares_its_problems() {
    let document = Rig::new().get("/openapi.json").await.json;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let responses = operation["responses"].as_object().unwrap();
            let is_problem = |status: &str| {
                let content = &responses[status]["content"];
                content.get("application/problem+json").is_some()
            };
            let errors: Vec<&String> = responses.keys().filter(|status| *status >= &"400".to_owned()).collect();
            assert!(!errors.is_empty(), "{method} {path} declares no problem");
            assert!(errors.iter().all(|status| is_problem(status)), "{method} {path}: {errors:?}");
            let has_key = operation.get("security").is_some();
            assert_eq!(has_key, path.starts_with("/v1/"), "{method} {path}");
            assert_eq!(has_key, responses.contains_key("401"), "{method} {path}");
            let has_body = operation.get("requestBody").is_some();
            assert!(!has_body || responses.contains_key("415") && responses.contains_key("413"), "{method} {path}");
        }
    }
    assert_eq!(operations, 17);
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap_or(reference);
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

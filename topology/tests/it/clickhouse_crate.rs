//! Checks the OLAP front with the Rust `clickhouse` crate, as the query API itself uses it.

use clickhouse::{Client, Compression, Row};
use serde::{Deserialize, Serialize};

use crate::stack::{CLICKHOUSE_PASSWORD, CLICKHOUSE_WRITER};

#[derive(Row, Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Whole {
    id: u64,
    name: String,
    tags: Vec<String>,
    score: Option<f64>,
    properties: String,
}

#[derive(Row, Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Brief {
    id: u64,
    name: String,
}

const TABLE: &str = "clickhouse_crate_check";
const ROWS: u64 = 5_000;

/// Panics where something is not as a ClickHouse server does it.
pub fn check(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for compression in [Compression::None, Compression::Lz4] {
        for validation in [true, false] {
            let client = Client::default()
                .with_url(url)
                .with_database("neonhub")
                .with_user(CLICKHOUSE_WRITER)
                .with_password(CLICKHOUSE_PASSWORD)
                .with_compression(compression)
                .with_validation(validation)
                .with_setting("input_format_binary_read_json_as_string", "1")
                .with_setting("output_format_binary_write_json_as_string", "1");
            runtime.block_on(check_with(&client)).unwrap_or_else(|error| panic!("{compression:?}: {error}"));
        }
    }
}

async fn check_with(client: &Client) -> Result<(), clickhouse::error::Error> {
    client.query(&format!("DROP TABLE IF EXISTS {TABLE}")).execute().await?;
    let create = format!(
        "CREATE TABLE {TABLE} (id UInt64, name String, tags Array(String), score Nullable(Float64), properties JSON) \
         ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100"
    );
    client.query(&create).execute().await?;
    let row = |id: u64| Whole {
        id,
        name: format!("it's \\ \n{id}"),
        tags: vec!["a".to_owned(), id.to_string()],
        score: id.is_multiple_of(2).then_some(id as f64),
        properties: format!("{{\"n\":\"{id}\"}}"),
    };
    let rows: Vec<Whole> = (0..ROWS).map(row).collect();
    // The second one is the first again.
    for _ in 0..2 {
        let insert = client.insert::<Whole>(TABLE).await?;
        let mut insert = insert.with_setting("insert_deduplication_token", "once");
        for row in &rows {
            insert.write(row).await?;
        }
        insert.end().await?;
    }
    let select =
        client.query(&format!("SELECT ?fields FROM {TABLE} ORDER BY id")).with_setting("max_block_size", "1000");
    assert!(select.fetch_all::<Whole>().await? == rows, "rows come back as they went in, once");
    let bound = client
        .query(&format!(
            "SELECT id, name FROM {TABLE} WHERE name = {{name:String}} AND id IN {{ids:Array(UInt64)}} AND id = ?"
        ))
        .bind(7)
        .param("name", &rows[7].name)
        .param("ids", vec![7_u64, 8]);
    assert_eq!(bound.fetch_all::<Brief>().await?, [Brief { id: 7, name: rows[7].name.clone() }]);
    assert_fails(client.query("SELECT * FROM no_such_table").execute().await, 60);
    let failing = "SELECT toUInt64(throwIf(number = 150000, 'midway')) AS id, 'x' AS name FROM numbers(200000)";
    let midway = client.query(failing).with_setting("max_block_size", "1000").fetch_all::<Brief>().await;
    assert_fails(midway.map(drop), 395);
    client.query(&format!("DROP TABLE {TABLE}")).execute().await
}

fn assert_fails(outcome: Result<(), clickhouse::error::Error>, code: u32) {
    let error = outcome.expect_err("this query fails").to_string();
    assert!(error.contains(&format!("Code: {code}")), "{error}");
}

use neonhub_api::catalog::Catalog;
use neonhub_api::olap::http::*;
use neonhub_api::olap::*;
use serde_json::json;
#[tokio::test]
async fn scratch() {
    let url = "http://127.0.0.1:18199".to_string();
    let c = clickhouse::Client::default().with_url(&url);
    c.query_raw("DROP DATABASE IF EXISTS neonhub").execute().await.unwrap();
    c.query_raw("CREATE DATABASE neonhub").execute().await.unwrap();
    for m in neonhub_schemas::migrations::CLICKHOUSE {
        for s in m.statements(&neonhub_schemas::migrations::ClickHouseTarget { database: "neonhub", cluster: None }) {
            c.query_raw(&s).execute().await.unwrap();
        }
    }
    let ex = |s: &str| {
        let s = s.to_owned();
        let c = c.clone();
        async move { c.query_raw(&s).execute().await.unwrap() }
    };
    for (metric, n) in [("clicks", 3), ("impressions", 10)] {
        for (rev, k) in [(1, 1), (2, 2)] {
            ex(&format!("INSERT INTO neonhub.metric_windows SELECT '{metric}x', 'x', 0, 'quarter', 'UTC', toDateTime('2019-11-24 00:00:00','UTC'), toDateTime('2019-11-24 00:15:00','UTC'), 'k', map('campaign','men'), '0-1', 1, true, 1, 0, NULL, NULL, '', '', now64()")).await;
            ex(&format!("INSERT INTO neonhub.metric_windows SELECT 'acme', '{metric}', 0, 'quarter', 'UTC', toDateTime('2019-11-24 00:00:00','UTC')+number*900, toDateTime('2019-11-24 00:15:00','UTC')+number*900, 'k', map('campaign','men','policy', if(number%2=0,'bts','it''s')), '0-1', {rev}, true, {n}*{k}, 1.5, 0.5, 1, '', '', now64() FROM numbers(96)")).await;
        }
    }
    let mut h = neonhub_schemas::sketch::HyperLogLog::default();
    h.insert_hash(1);
    h.insert_hash(u64::MAX);
    let hex: String = h.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    ex(&format!("INSERT INTO neonhub.metric_windows SELECT 'acme', 'visitors', 0, 'day', 'UTC', toDateTime('2019-11-24 00:00:00','UTC'), toDateTime('2019-11-25 00:00:00','UTC'), 'k', map('campaign','men'), concat('0-',toString(number)), 1, true, 2, 0, NULL, NULL, unhex('{hex}'), '', now64() FROM numbers(3)")).await;
    ex("INSERT INTO neonhub.events SELECT 'acme', 'm'||toString(number), 'behavior','track','Order', 'u','','','','','men','', if(number=0,NULL,toDecimal128('19.99',6)), toDateTime64('2019-11-24 00:00:00',3,'UTC')+intDiv(number,2), now64(3), '{\"a\":{\"b\":5.0,\"c\":\"x\"},\"we''ird\":\"w\\\\\\\\ä\"}', '{\"page\":{\"path\":\"/x\"}}', 0, number FROM numbers(6)").await;
    ex("INSERT INTO neonhub.metric_activations VALUES ('acme','orders',3,'behavior',0,5,NULL,'',1)").await;
    let olap = ClickHouseOlap::new(&ClickHouseConfig {
        url,
        database: "neonhub".into(),
        user: None,
        password: None,
        timeout: std::time::Duration::from_secs(20),
    });
    olap.ping().await.unwrap();
    let q = |j: serde_json::Value| {
        let olap = &olap;
        async move {
            let q: neonhub_api::query::request::MetricQuery = serde_json::from_value(j).unwrap();
            match neonhub_api::query::run(olap, &Catalog::new(&[]), "acme", "UTC", 50000, &q).await {
                Ok(a) => println!("{}", serde_json::to_string(&a).unwrap()),
                Err(p) => println!("PROBLEM {p:?}"),
            }
        }
    };
    q(json!({"metrics":["clicks","impressions","ctr"],"grain":"day","timezone":"Asia/Kathmandu","from":"2019-11-23T18:15:00Z","to":"2019-11-25T18:15:00Z","group_by":["campaign","policy"],"compare":"previous_period"})).await;
    q(json!({"metrics":["clicks"],"grain":"total","from":"2019-11-24T00:15:00Z","to":"2019-11-24T12:00:00Z","filters":[{"dimension":"policy","op":"in","values":["it's","\\'x\t"]}]})).await;
    q(json!({"metrics":["clicks"],"grain":"total","from":"2019-11-24T00:15:00Z","to":"2019-11-24T12:00:00Z","filters":[{"dimension":"policy","op":"prefix","value":"it'"},{"dimension":"campaign","op":"contains","value":"e"},{"dimension":"campaign","op":"ne","value":"women"}]})).await;
    q(json!({"metrics":["visitors"],"grain":"day","from":"2019-11-24T00:00:00Z","to":"2019-11-25T00:00:00Z","fill":true,"group_by":["campaign"]})).await;
    let mut cursor: Option<String> = None;
    for _ in 0..3 {
        let e: neonhub_api::events::request::EventsQuery = serde_json::from_value(json!({"limit":2,"cursor":cursor,"filters":[{"field":"properties.we'ird","op":"eq","value":"w\\ä"},{"field":"properties.a.b","op":"in","values":[5,"x"]}],"columns":["timestamp","message_id","value","source","properties.a.b","context"]})).unwrap();
        match neonhub_api::events::run(&olap, "acme", &e).await {
            Ok(p) => {
                println!("{}", serde_json::to_string(&p).unwrap());
                cursor = p.next_cursor;
            }
            Err(p) => println!("PROBLEM {p:?}"),
        }
    }
}

//! Requests from several connections, as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;

/// Posts all bodies, each until it is answered with 200. Answers of 429 and 503 are asked again at once.
pub async fn post_all(url: &str, write_key: &str, bodies: Arc<Vec<String>>, connections: usize) -> anyhow::Result<()> {
    let http = crate::clients::http_client(None)?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (http, url, key) = (http.clone(), url.to_owned(), write_key.to_owned());
        let (next, bodies) = (Arc::clone(&next), Arc::clone(&bodies));
        tasks.spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                loop {
                    let request = http.post(&url).basic_auth(&key, Some("")).header("content-type", "application/json");
                    let answer = request.body(body.clone()).send().await.context("a POST")?;
                    let status = answer.status().as_u16();
                    let text = answer.text().await?;
                    match status {
                        200 => break,
                        429 | 503 => tokio::task::yield_now().await,
                        _ => anyhow::bail!("{status}: {text}"),
                    }
                }
            }
            Ok(())
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    Ok(())
}

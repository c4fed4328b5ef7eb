//! Pure: no I/O, no clock, no async.
//!
//! Enrichment: device from the user agent, campaign from UTM parameters, the referrer's domain. What is found goes into
//! `context.neonhub`; what the sender wrote is never changed.

use std::borrow::Cow;

use hashbrown::HashMap;
use neonhub_schemas::event::{Envelope, Extracted, FieldPath, FieldSet, Source};
use serde::Serialize;
use woothee::parser::Parser;

/// At most so many user agents are remembered; they repeat.
const REMEMBERED_AGENTS: usize = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Device {
    browser: String,
    browser_version: String,
    os: String,
    /// `pc`, `smartphone`, `mobilephone`, `appliance`, `crawler`, `misc`.
    category: String,
}

#[derive(Debug, Default, Serialize)]
struct Found<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referrer_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    utm: Option<Utm>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Utm {
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    medium: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Reads the fields it needs in one walk and remembers user agents.
pub struct Enricher {
    fields: FieldSet,
    slots: Slots,
    parser: Parser,
    agents: HashMap<String, Option<Device>>,
}

struct Slots {
    user_agent: usize,
    own: usize,
    campaign_name: usize,
    search: [usize; 4],
    referrer: [usize; 2],
}

impl Default for Enricher {
    fn default() -> Self {
        let mut fields = FieldSet::default();
        let mut context =
            |path: &[&str]| fields.slot(&FieldPath::Context(path.iter().map(|step| (*step).to_owned()).collect()));
        let (user_agent, own) = (context(&["userAgent"]), context(&["neonhub"]));
        let campaign_name = context(&["campaign", "name"]);
        let (page_search, page_url) = (context(&["page", "search"]), context(&["page", "url"]));
        let page_referrer = context(&["page", "referrer"]);
        let mut property = |name: &str| fields.slot(&FieldPath::Property(vec![name.to_owned()]));
        let slots = Slots {
            user_agent,
            own,
            campaign_name,
            search: [page_search, page_url, property("search"), property("url")],
            referrer: [page_referrer, property("referrer")],
        };
        Self { fields, slots, parser: Parser::new(), agents: HashMap::new() }
    }
}

impl Enricher {
    /// The campaign (for behaviour that names none) and the context with what was found; `None` where nothing was.
    pub fn enrich(&mut self, event: &Envelope<'_>) -> (Option<String>, Option<String>) {
        if event.context.len() <= 2 && event.properties.len() <= 2 {
            return (None, None);
        }
        let extracted = self.fields.extract(event);
        let agent = self.text(self.slots.user_agent, event, &extracted);
        let utm = self.slots.search.iter().find_map(|slot| {
            let text = self.text(*slot, event, &extracted)?;
            utm_of(&text)
        });
        let referrer_domain = self.slots.referrer.iter().find_map(|slot| {
            let text = self.text(*slot, event, &extracted)?;
            domain_of(&text)
        });
        let mut campaign = None;
        if event.campaign.is_none() && event.source() == Source::Behavior {
            let named = self.text(self.slots.campaign_name, event, &extracted).map(Cow::into_owned);
            campaign = named.or_else(|| utm.as_ref().and_then(|utm| utm.campaign.clone()));
        }
        let already_there = self.fields.value(self.slots.own, event, &extracted).is_some();
        drop(extracted);
        let device = agent.and_then(|agent| device_of(&self.parser, &mut self.agents, &agent));
        if already_there || device.is_none() && referrer_domain.is_none() && utm.is_none() {
            return (campaign, None);
        }
        (campaign, insert_own(&event.context, &Found { device, referrer_domain, utm }))
    }

    fn text<'a>(&self, slot: usize, event: &'a Envelope<'_>, extracted: &Extracted<'a>) -> Option<Cow<'a, str>> {
        self.fields.value(slot, event, extracted).map(|value| value.to_text())
    }
}

fn insert_own(context: &str, found: &Found<'_>) -> Option<String> {
    let inner = context.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let found = serde_json::to_string(found).ok()?;
    let comma = if inner.is_empty() { "" } else { "," };
    Some(format!("{{{inner}{comma}\"neonhub\":{found}}}"))
}

fn device_of<'m>(parser: &Parser, agents: &'m mut HashMap<String, Option<Device>>, agent: &str) -> Option<&'m Device> {
    if agents.len() >= REMEMBERED_AGENTS {
        agents.clear();
    }
    if !agents.contains_key(agent) {
        let known = |text: &str| if text == "UNKNOWN" { String::new() } else { text.to_owned() };
        let device = parser.parse(agent).map(|result| Device {
            browser: known(result.name),
            browser_version: known(result.version),
            os: known(result.os),
            category: known(result.category),
        });
        agents.insert(agent.to_owned(), device);
    }
    agents.get(agent).and_then(Option::as_ref)
}

/// UTM parameters of a query string or URL.
fn utm_of(text: &str) -> Option<Utm> {
    let query = text.split_once('?').map_or(text, |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let mut utm = Utm::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let field = match name {
            "utm_campaign" => &mut utm.campaign,
            "utm_source" => &mut utm.source,
            "utm_medium" => &mut utm.medium,
            "utm_term" => &mut utm.term,
            "utm_content" => &mut utm.content,
            _ => continue,
        };
        let value = percent_decode(value);
        if !value.is_empty() {
            *field = Some(value);
        }
    }
    (utm != Utm::default()).then_some(utm)
}

/// `application/x-www-form-urlencoded` decoding; what is no UTF-8 is replaced, NUL is dropped.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let byte = match (first, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => {
                        rest = after;
                        high * 16 + low
                    }
                    _ => b'%',
                }
            }
            (other, _) => *other,
        };
        if byte != 0 {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The host of an absolute URL, lower-case, without `www.` and port.
fn domain_of(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?.to_ascii_lowercase();
    let host = host.strip_prefix("www.").unwrap_or(&host);
    (!host.is_empty() && host.len() <= 253).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrich(properties: &str, context: &str) -> (Option<String>, Option<String>) {
        let golden = include_str!("../../../schemas/golden/envelope-v1-track.json");
        let mut event = Envelope::decode(golden.as_bytes()).unwrap();
        event.campaign = None;
        event.properties = Cow::Owned(properties.to_owned());
        event.context = Cow::Owned(context.to_owned());
        Enricher::default().enrich(&event)
    }

    #[test]
    fn device_campaign_and_referrer_are_found() {
        let agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36";
        let context = format!(
            r#"{{"userAgent":"{agent}","page":{{"search":"?utm_campaign=spring%20sale&utm_source=mail","referrer":"https://www.Example.com:80/x"}}}}"#
        );
        let (campaign, context) = enrich("{}", &context);
        assert_eq!(campaign.as_deref(), Some("spring sale"));
        let context: serde_json::Value = serde_json::from_str(&context.unwrap()).unwrap();
        assert_eq!(context["neonhub"]["device"]["browser"], "Chrome");
        assert_eq!(context["neonhub"]["device"]["category"], "pc");
        assert_eq!(context["neonhub"]["referrer_domain"], "example.com");
        assert_eq!(context["neonhub"]["utm"]["source"], "mail");
        assert_eq!(context["userAgent"], agent);
    }

    #[test]
    fn what_the_sender_wrote_is_kept() {
        let (campaign, context) =
            enrich("{}", r#"{"campaign":{"name":"summer"},"neonhub":{"x":1},"userAgent":"curl/8"}"#);
        assert_eq!(campaign.as_deref(), Some("summer"));
        assert_eq!(context, None);
        assert_eq!(enrich("{}", "{}"), (None, None));
        let (_, context) = enrich(r#"{"url":"https://x/?utm_source=a"}"#, "{}");
        assert_eq!(context.as_deref(), Some(r#"{"neonhub":{"utm":{"source":"a"}}}"#));
    }

    #[test]
    fn every_utm_parameter_is_found() {
        let query = "?utm_campaign=a&utm_source=b&utm_medium=c%2Fd&utm_term=e+f&utm_content=g";
        let (_, context) = enrich(&format!(r#"{{"search":"{query}"}}"#), "{}");
        let context: serde_json::Value = serde_json::from_str(&context.unwrap()).unwrap();
        let expected =
            serde_json::json!({"campaign": "a", "source": "b", "medium": "c/d", "term": "e f", "content": "g"});
        assert_eq!(context["neonhub"]["utm"], expected);
    }

    #[test]
    fn odd_urls_are_harmless() {
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
        assert_eq!(percent_decode("a%00b%ff"), "ab\u{fffd}");
        assert_eq!(domain_of("not a url"), None);
        assert_eq!(domain_of("http://"), None);
        assert_eq!(utm_of("?utm_campaign="), None);
    }
}

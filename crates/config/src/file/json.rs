//! A virtual service as JSON: the keys of `[[service]]`, as the API has them. It is read by the reader of dirigent.toml,
//! so that there is one grammar; only the places in messages are others.

use super::{VERSION, parse, print};
use crate::model::Service;
use dirigent_api::Problem;
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

/// An object.
pub type Object = Map<String, Value>;

/// The service that an object describes, or all that is wrong with it, by the key: `server[0].weight`. A key with null
/// counts as absent.
pub fn read(service: &Object) -> Result<Service, Vec<Problem>> {
    let mut text = Text::default();
    text.line("", &format!("version = {VERSION}"));
    text.line("", "[[service]]");
    text.table("", service, &["persistence", "server"]);
    match service.get("persistence") {
        Some(Value::Object(table)) => {
            text.line("persistence", "[service.persistence]");
            text.table("persistence.", table, &[]);
        }
        other => text.key("", "persistence", other),
    }
    match service.get("server") {
        Some(Value::Array(servers)) if servers.iter().all(Value::is_object) => {
            for (at, server) in servers.iter().enumerate() {
                text.line(&format!("server[{at}]"), "[[service.server]]");
                let server = server.as_object().into_iter();
                server.for_each(|server| text.table(&format!("server[{at}]."), server, &[]));
            }
        }
        // Below tables that were opened it would be theirs.
        Some(Value::Null) | None => {}
        Some(_) => {
            let remedy = "write a list of objects: [{\"address\": \"10.0.0.2:80\"}]";
            return Err(vec![Problem::new("server", "server is no list of objects", remedy)]);
        }
    }
    let model = parse("", &text.lines).map_err(|found| {
        let place = |line: usize| text.places.get(line.saturating_sub(1)).cloned().unwrap_or_default();
        let message = |message: String| match message.rsplit_once(", first in line ") {
            Some((what, line)) => format!("{what}, first in {}", line.parse().map_or_else(|_| line.to_owned(), place)),
            None => message,
        };
        found.0.into_iter().map(|d| Problem::new(place(d.line), message(d.message), d.remedy)).collect::<Vec<_>>()
    })?;
    let gone = || vec![Problem::new("", "it is no service", "name its protocol and address, or its fwmark")];
    model.services().first().cloned().ok_or_else(gone)
}

/// What [`read`] makes the same service of. What has its default value may be absent; a drain is not in it.
pub fn write(service: &Service) -> Object {
    let mut text = String::new();
    print::service(service, &mut text);
    let (root, _) = DeTable::parse_recoverable(&text);
    let mut root = object(root.get_ref());
    match root.remove("service") {
        Some(Value::Array(mut services)) => match services.pop() {
            Some(Value::Object(service)) => service,
            _ => Object::new(),
        },
        _ => Object::new(),
    }
}

/// dirigent.toml, of which each line knows the key that it came from.
#[derive(Default)]
struct Text {
    lines: String,
    places: Vec<String>,
}

impl Text {
    fn line(&mut self, place: &str, line: &str) {
        self.places.push(place.to_owned());
        self.lines += line;
        self.lines.push('\n');
    }
    fn table(&mut self, path: &str, table: &Object, without: &[&str]) {
        for (key, value) in table.iter().filter(|(key, _)| !without.contains(&key.as_str())) {
            self.key(path, key, Some(value));
        }
    }
    fn key(&mut self, path: &str, key: &str, value: Option<&Value>) {
        if let Some(value) = value.and_then(inline) {
            self.line(&format!("{path}{key}"), &format!("{} = {value}", print::quoted(key)));
        }
    }
}

/// A value in one line; none for null.
fn inline(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => print::quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().filter_map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pair = |(key, value): (&String, &Value)| Some(format!("{} = {}", print::quoted(key), inline(value)?));
            format!("{{ {} }}", table.iter().filter_map(pair).collect::<Vec<_>>().join(", "))
        }
    })
}

fn object(table: &DeTable) -> Object {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref()))).collect()
}

fn json(value: &DeValue) -> Value {
    match value {
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => object(table).into(),
        other => other.as_str().map_or(Value::Null, Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;
    use serde_json::json;

    fn object_of(value: Value) -> Object {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn objections_name_the_key() {
        let body = json!({
            "protocol": "tcp", "address": "192.0.2.10:80", "shceduler": "rr", "one_packet": 1,
            "persistence": { "timeout": 5 },
            "server": [{ "address": "10.0.0.2:80", "weight": "3" }, { "weight": 3_000_000_000_u64 }, { "address": "10.0.0.2:80" }],
        });
        let found = read(&object_of(body)).unwrap_err();
        let places: Vec<_> = found.iter().map(|p| p.place.as_str()).collect();
        let wanted =
            ["one_packet", "shceduler", "persistence.timeout", "server[0].weight", "server[1]", "server[1].weight"];
        for place in wanted {
            assert!(places.contains(&place), "{place}: {found:#?}");
        }
        assert!(found.iter().all(|p| !p.remedy.is_empty()), "{found:#?}");
        for (body, place) in [
            (json!({ "server": 5 }), "server"),
            (json!({ "server": [5] }), "server"),
            (json!({ "protocol": "tcp", "address": "192.0.2.10:80", "persistence": "5m" }), "persistence"),
            (json!({ "protocol": "tcp", "address": "192.0.2.10:80", "scheduler": { "name": "rr" } }), "scheduler"),
            (json!({ "protocol": "tcp", "address": "192.0.2.10:80", "a\"b\n": "\u{7f}\u{1}" }), "a\"b\n"),
        ] {
            let found = read(&object_of(body)).unwrap_err();
            assert!(found.iter().any(|p| p.place == place), "{found:#?}");
        }
    }

    proptest! {
        #[test]
        fn any_service_comes_back(model in testing::model()) {
            for service in model.services() {
                prop_assert_eq!(read(&write(service)), Ok(service.clone()));
            }
        }
    }
}

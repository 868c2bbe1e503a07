//! Countries and operators of addresses, from databases that the user supplies.
//!
//! The fields are those of the databases in use: `country.iso_code` and `autonomous_system_organization` of
//! MaxMind and DB-IP, `country_code`, `asn` and `as_name` of IPinfo.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use maxminddb::Reader;
use serde_json::Value;

use super::figures::{top, Count};
use crate::cli::exit::Failure;
use crate::cli::listing::Item;
use crate::quote::{foreign, plain, printable};

/// Longest name of a country or an operator that is shown, in characters.
const LONGEST: usize = 60;

/// What the databases know of the list; each part only if one of them knows it.
#[derive(Debug, Default)]
pub struct Places {
    /// Most addresses first.
    pub countries: Option<Vec<Count>>,
    /// Most addresses first.
    pub operators: Option<Vec<Count>>,
}

/// One database with its name.
struct Database {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
}

/// Looks all addresses up.
pub fn places(paths: &[PathBuf], items: &[Item]) -> Result<Places, Failure> {
    if paths.is_empty() {
        return Ok(Places::default());
    }
    let databases: Vec<Database> = paths
        .iter()
        .map(|path| open(path))
        .collect::<Result<_, _>>()?;
    let mut countries: HashMap<String, u64> = HashMap::new();
    let mut operators: HashMap<String, u64> = HashMap::new();
    for item in items {
        let (mut country, mut operator) = (None, None);
        for database in &databases {
            let Some(record) = record(database, item)? else {
                continue;
            };
            country = country.or_else(|| country_of(&record));
            operator = operator.or_else(|| operator_of(&record));
        }
        for (counts, name) in [(&mut countries, country), (&mut operators, operator)] {
            let name = name.unwrap_or_else(|| UNKNOWN.to_owned());
            *counts.entry(name).or_default() += 1;
        }
    }
    let known = |counts: HashMap<String, u64>| {
        let knows = counts.keys().any(|name| name != UNKNOWN);
        knows.then(|| top(counts.into_iter()))
    };
    let places = Places {
        countries: known(countries),
        operators: known(operators),
    };
    if places.countries.is_none() && places.operators.is_none() && !items.is_empty() {
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(Failure::trouble(format!(
            "--geo {}: no country and no operator of any listed address is in it; a database of countries or of \
             autonomous systems is needed",
            names.join(", ")
        )));
    }
    Ok(places)
}

/// The name of whatever no database knows.
const UNKNOWN: &str = "unknown";

fn open(path: &Path) -> Result<Database, Failure> {
    let problem = |what: String| {
        Failure::trouble(format!(
            "--geo {}: {what}; it must be an MMDB file such as GeoLite2-Country.mmdb",
            path.display()
        ))
    };
    let bytes = std::fs::read(path).map_err(|error| problem(plain(&error)))?;
    let reader = Reader::from_source(bytes)
        .map_err(|error| problem(foreign(&plain(&error), 120).to_string()))?;
    Ok(Database {
        path: path.to_owned(),
        reader,
    })
}

/// What a database says of an address; `None` if it does not know it.
fn record(database: &Database, item: &Item) -> Result<Option<Value>, Failure> {
    if database.reader.metadata().ip_version == 4 && !item.subnet.is_v4() {
        return Ok(None);
    }
    let found = database.reader.lookup(item.subnet.address());
    found.and_then(|found| found.decode()).map_err(|error| {
        Failure::trouble(format!(
            "--geo {}: it is damaged: {}; fetch it again",
            database.path.display(),
            foreign(&plain(&error), 120)
        ))
    })
}

/// The first of these places that holds a text.
fn text(record: &Value, pointers: &[&str]) -> Option<String> {
    let found = pointers
        .iter()
        .find_map(|pointer| record.pointer(pointer)?.as_str());
    let found = found.filter(|text| !text.trim().is_empty())?;
    Some(foreign(&printable(found.trim()), LONGEST).to_string())
}

fn country_of(record: &Value) -> Option<String> {
    let name = text(
        record,
        &[
            "/country/names/en",
            "/registered_country/names/en",
            "/country_name",
        ],
    );
    let code = text(
        record,
        &[
            "/country/iso_code",
            "/registered_country/iso_code",
            "/country_code",
        ],
    );
    match (code, name) {
        (Some(code), Some(name)) => Some(format!("{code} {name}")),
        // IPinfo's "country" is a name in one kind of database and a code in another.
        (code, name) => code.or(name).or_else(|| text(record, &["/country"])),
    }
}

fn operator_of(record: &Value) -> Option<String> {
    let name = text(
        record,
        &[
            "/autonomous_system_organization",
            "/as_name",
            "/organization",
        ],
    );
    let number = record
        .get("autonomous_system_number")
        .and_then(Value::as_u64);
    let number = number.map(|number| format!("AS{number}"));
    match (number.or_else(|| text(record, &["/asn"])), name) {
        (Some(number), Some(name)) => Some(format!("{number} {name}")),
        (number, name) => number.or(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_names_of_every_kind_of_database() {
        let maxmind = json!({"country": {"iso_code": "NL", "names": {"en": "Netherlands", "de": "Niederlande"}}});
        assert_eq!(country_of(&maxmind).as_deref(), Some("NL Netherlands"));
        assert_eq!(operator_of(&maxmind), None);
        let registered = json!({"registered_country": {"iso_code": "FR"}});
        assert_eq!(country_of(&registered).as_deref(), Some("FR"));
        let asn = json!({"autonomous_system_number": 64500, "autonomous_system_organization": "Example\u{1b}[31m"});
        assert_eq!(operator_of(&asn).as_deref(), Some("AS64500 Example?[31m"));
        let ipinfo =
            json!({"asn": "AS64501", "as_name": "Other", "country": "Spain", "country_code": "ES"});
        assert_eq!(operator_of(&ipinfo).as_deref(), Some("AS64501 Other"));
        assert_eq!(country_of(&ipinfo).as_deref(), Some("ES"));
        for nothing in [json!({}), json!([1]), json!({"country": {"iso_code": ""}})] {
            assert_eq!((country_of(&nothing), operator_of(&nothing)), (None, None));
        }
    }
}

//! `postern ctl create`, `get` and `rm`: resources as documents.

use super::admin_client::AdminClient;
use super::ctl::{Format, print_as, table};
use super::terminal::{one_line, printable};
use super::{Failure, Outcome};
use crate::model::percent_encoded;
use crate::policy::{Problem, Resource, ResourceError, parse_resources};
use crate::web::api::{PutResources, RemoveToken, ResourceQuery, Resources, ResourcesPut, TokenRemoved};
use crate::web::kinds::{self, KINDS, Kind};
use hyper::Method;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// More than the parser reads, so that it is the parser that says what is too long.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

pub async fn create(client: &AdminClient, replace: bool, file: &Path) -> Outcome {
    let yaml = if file.as_os_str() == "-" {
        read(std::io::stdin())
    } else {
        std::fs::File::open(file).and_then(read)
    };
    let yaml = yaml.map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    // Read here first: a mistake is told with the file's name, and nothing is sent.
    let documents = documents(&yaml).map_err(|why| Failure::usage(format!("{}: {why}", file.display())))?;
    if documents.is_empty() {
        return Err(Failure::usage(format!(
            "{}: there is no document in it; nothing was created",
            file.display()
        )));
    }
    put(
        client,
        PutResources {
            yaml,
            replace,
            instead_of: None,
        },
    )
    .await
}

fn read(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// The documents of a text that `create` may be given.
///
/// # Errors
/// What is wrong with the first bad one; of a kind that is not written, also what to do instead.
pub fn documents(yaml: &str) -> Result<Vec<Resource>, String> {
    parse_resources(yaml).map_err(|error| {
        let instead = not_written(&error).map_or_else(String::new, |why| format!("; {why}"));
        format!("{error}{instead}")
    })
}

fn not_written(error: &ResourceError) -> Option<&'static str> {
    match error.problem() {
        Problem::UnknownKind { kind, .. } => kinds::find(kind).ok()?.not_written,
        _ => None,
    }
}

pub async fn put(client: &AdminClient, ask: PutResources) -> Outcome {
    let put: ResourcesPut = client.send(Method::PUT, "/v1/resources", &ask).await?;
    for done in put.done {
        let verb = if done.replaced { "updated" } else { "created" };
        println!("{} {:?} has been {verb}", done.kind, done.name);
    }
    Ok(())
}

/// What `get` is asked for: a kind, and maybe a name.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    kind: &'static Kind,
    name: Option<String>,
}

/// `role/access,users`; `all` is what `create` reads back, in an order that it can.
fn wanted(what: &str) -> Result<Vec<Wanted>, Failure> {
    let mut found = Vec::new();
    for word in what.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if word == "all" {
            let written = KINDS.iter().filter(|kind| kind.not_written.is_none());
            found.extend(written.map(|kind| Wanted { kind, name: None }));
            continue;
        }
        let (kind, name) = match word.split_once('/') {
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (word, None),
        };
        if name.as_ref().is_some_and(String::is_empty) {
            return Err(Failure::usage(format!(
                "{word:?} has no name after the stroke; write {kind}/NAME, or {kind} for all of them"
            )));
        }
        let kind = kinds::find(kind).map_err(Failure::usage)?;
        found.push(Wanted { kind, name });
    }
    if found.is_empty() {
        return Err(Failure::usage("nothing is asked for; write KIND, KIND/NAME or all"));
    }
    Ok(found)
}

pub async fn get(client: &AdminClient, what: &str, format: Format) -> Outcome {
    let mut found = Resources {
        documents: Vec::new(),
        yaml: Vec::new(),
    };
    for Wanted { kind, name } in wanted(what)? {
        let more = one_kind(client, kind, name).await?;
        found.documents.extend(more.documents);
        found.yaml.extend(more.yaml);
    }
    match format {
        Format::Json => print_as(&found.documents, format),
        Format::Yaml => {
            let documents: Vec<String> = found.yaml.iter().map(|text| printable(text.trim_end())).collect();
            // Without any, nothing: an empty stream is what `create` would read from it.
            if !documents.is_empty() {
                println!("{}", documents.join("\n---\n"));
            }
            Ok(())
        }
        Format::Text => {
            println!("{}", listed(&found.documents));
            Ok(())
        }
    }
}

pub async fn one_kind(client: &AdminClient, kind: &Kind, name: Option<String>) -> Result<Resources, Failure> {
    let query = ResourceQuery {
        kind: kind.name.to_owned(),
        name,
    };
    client.get("/v1/resources", &query).await
}

fn listed(documents: &[Value]) -> comfy_table::Table {
    let mut table = table(&["Kind", "Name", "Description", "Labels"]);
    for document in documents {
        let metadata = &document["metadata"];
        let text = |value: &Value| one_line(value.as_str().unwrap_or_default());
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", text(value))).collect();
        table.add_row([
            text(&document["kind"]),
            text(&metadata["name"]),
            text(&metadata["description"]),
            one_line(&labels.join(",")),
        ]);
    }
    table
}

/// The kind and the name of `KIND/NAME`.
pub fn one_resource(what: &str) -> Result<(&'static Kind, &str), Failure> {
    match what.split_once('/') {
        Some((kind, name)) if !name.is_empty() => Ok((kinds::find(kind).map_err(Failure::usage)?, name)),
        _ => Err(Failure::usage(format!(
            "{what:?} names no resource; write KIND/NAME, for example role/access, user/alice or node/NAME"
        ))),
    }
}

pub async fn remove(client: &AdminClient, what: &str) -> Outcome {
    let (kind, name) = one_resource(what)?;
    if let Some(why) = kind.not_removed {
        return Err(Failure::usage(format!("a {} is not removed: {why}", kind.name)));
    }
    if kind.name == "token" {
        // In the body, as `tokens rm` does: paths are what programs like to log.
        let token = name.trim_end_matches('*').to_owned();
        let removed: TokenRemoved = client
            .send(Method::POST, "/v1/tokens/remove", &RemoveToken { token })
            .await?;
        println!("token {:?} has been deleted", removed.removed);
        return Ok(());
    }
    let path = format!("/v1/resources/{}/{}", kind.name, percent_encoded(name));
    let _removed: Value = client.delete(&path).await?;
    println!("{} {name:?} has been deleted", kind.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(what: &str) -> Result<Vec<String>, String> {
        let found = wanted(what).map_err(|failure| failure.to_string())?;
        Ok(found
            .iter()
            .map(|wanted| match &wanted.name {
                Some(name) => format!("{}/{name}", wanted.kind.name),
                None => wanted.kind.name.to_owned(),
            })
            .collect())
    }

    #[test]
    fn kinds_and_names_are_read_with_commas_between_them_and_all_is_what_can_be_written_back() {
        assert_eq!(
            names("roles, user/alice,cas").unwrap(),
            ["role", "user/alice", "cert_authority"]
        );
        assert_eq!(names("role/a/b").unwrap(), ["role/a/b"]);
        let all = names("all").unwrap();
        assert!(all.starts_with(&["role".to_owned(), "user".to_owned()]), "{all:?}");
        assert!(!all.contains(&"node".to_owned()), "{all:?}");
        assert!(names("role/").unwrap_err().contains("role/NAME"));
        assert!(names("github").unwrap_err().contains("cert_authority"));
        assert!(names(",").unwrap_err().contains("KIND/NAME"));
    }

    #[test]
    fn a_document_of_a_kind_that_is_not_written_is_told_what_to_do_instead() {
        let said = documents("kind: token\nversion: v2\nmetadata:\n  name: x\n").unwrap_err();
        assert!(said.contains("tokens add") && said.contains("line 1"), "{said}");
        let said = documents("kind: rule\nversion: v2\n").unwrap_err();
        assert!(said.contains("\"rule\"") && !said.contains("tokens add"), "{said}");
    }

    #[test]
    fn the_list_is_one_line_a_document() {
        let documents = [serde_json::json!({
            "kind": "role", "metadata": { "name": "a\nb", "description": "x", "labels": { "env": "dev" } }
        })];
        let text = listed(&documents).to_string();
        assert!(text.contains("a\\nb") && text.contains("env=dev"), "{text}");
    }
}

//! `postern ctl edit KIND/NAME`: a document in an editor, and back.

use super::admin_client::AdminClient;
use super::names::Program;
use super::{Failure, Outcome, resources};
use crate::pki::entropy;
use crate::pki::pem::create_private;
use crate::policy::Resource;
use crate::web::api::PutResources;
use crate::web::kinds::Kind;
use data_encoding::HEXLOWER;
use serde_json::Value;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who says which editor; the first that is set.
const EDITOR_VARIABLES: [&str; 4] = ["POSTERN_EDITOR", "TELEPORT_EDITOR", "VISUAL", "EDITOR"];
const USUAL_EDITOR: &str = "vi";

pub async fn edit(client: &AdminClient, program: Program, what: &str) -> Outcome {
    let (kind, name) = resources::one_resource(what)?;
    if let Some(why) = kind.not_written {
        return Err(Failure::usage(format!("a {} is not edited: {why}", kind.name)));
    }
    let found = resources::one_kind(client, kind, Some(name.to_owned())).await?;
    let (Some(before), Some(document)) = (found.yaml.first(), found.documents.first()) else {
        return Err(Failure::failed(format!("there is no {} called {name:?}", kind.name)));
    };
    let draft = Draft::new(kind, before)?;
    run_editor(&draft.file)?;
    let after = std::fs::read_to_string(&draft.file).map_err(|error| {
        let file = draft.file.display();
        Failure::failed(format!(
            "{file} cannot be read after the editor: {error}; nothing was changed"
        ))
    })?;
    if after == *before {
        println!("{} {name:?} is unchanged: nothing was written", kind.name);
        return draft.remove();
    }
    let written = match check(kind, name, document, &after) {
        Ok(false) => {
            println!("{} {name:?} means what it meant: nothing was written", kind.name);
            return draft.remove();
        }
        Ok(true) => {
            let ask = PutResources {
                yaml: after,
                replace: true,
                instead_of: Some(document.clone()),
            };
            resources::put(client, ask).await
        }
        Err(failure) => Err(failure),
    };
    match written {
        Ok(()) => draft.remove(),
        Err(failure) => Err(failure.and(&format!(
            "your text is kept in {file}; correct it and write it with: {ctl} create -f {file}",
            file = draft.file.display(),
            ctl = program.ctl(),
        ))),
    }
}

/// Whether the text says something new of the same resource.
fn check(kind: &Kind, name: &str, before: &Value, after: &str) -> Result<bool, Failure> {
    let documents = resources::documents(after).map_err(Failure::usage)?;
    let [document] = documents.as_slice() else {
        return Err(Failure::usage(format!(
            "there are {} documents in the text, where one is edited",
            documents.len()
        )));
    };
    if (document.kind(), document.name()) != (kind.name, name) {
        return Err(Failure::usage(format!(
            "the text is of {} {:?}, and {} {name:?} is edited; an edit does not rename: create the other, and remove this one",
            document.kind(),
            document.name(),
            kind.name
        )));
    }
    let before = Resource::from_json(&before.to_string()).map_err(Failure::internal)?;
    Ok(*document != before)
}

/// The text while it is edited, in a directory that only its owner may open: some editors write a new file, with a mode of
/// their own.
struct Draft {
    directory: PathBuf,
    file: PathBuf,
}

impl Draft {
    fn new(kind: &Kind, text: &str) -> Result<Self, Failure> {
        let random = HEXLOWER.encode(&entropy::bytes::<8>());
        let directory = std::env::temp_dir().join(format!("postern-edit-{random}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|error| Failure::failed(format!("{} cannot be made: {error}", directory.display())))?;
        let file = directory.join(format!("{}.yaml", kind.name));
        create_private(&file, text.as_bytes()).map_err(Failure::failed)?;
        Ok(Self { directory, file })
    }

    /// Only when there is nothing in it that somebody may miss.
    fn remove(self) -> Outcome {
        std::fs::remove_dir_all(&self.directory).map_err(|error| {
            let directory = self.directory.display();
            Failure::failed(format!(
                "it is done, but {directory} cannot be removed: {error}; remove it"
            ))
        })
    }
}

fn run_editor(file: &Path) -> Outcome {
    let said = EDITOR_VARIABLES
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.trim().is_empty());
    let editor = said.as_deref().unwrap_or(USUAL_EDITOR);
    // Through the shell, as git does: the variable may hold arguments, and quotes.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$@\""), editor])
        .arg(file)
        .status()
        .map_err(|error| Failure::failed(format!("the editor {editor:?} cannot be started: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the editor {editor:?} ended with {status}, so nothing was changed; your text is kept in {}; name another editor by \
         {}",
        file.display(),
        EDITOR_VARIABLES.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::kinds;

    const ROLE: &str = "kind: role\nversion: v5\nmetadata:\n  name: a\nspec:\n  allow:\n    db_users: [x]\n";

    fn checked(after: &str) -> Result<bool, String> {
        let before = resources::documents(ROLE).unwrap()[0].to_json();
        let before = serde_json::from_str(&before).unwrap();
        check(kinds::find("role").unwrap(), "a", &before, after).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_text_is_written_when_it_means_something_else_of_the_same_resource() {
        assert_eq!(checked(&format!("# a comment\n{ROLE}")), Ok(false));
        assert_eq!(checked(&ROLE.replace("[x]", "[x, y]")), Ok(true));
        assert!(
            checked(&ROLE.replace("name: a", "name: b"))
                .unwrap_err()
                .contains("does not rename")
        );
        assert!(checked("").unwrap_err().contains("0 documents"));
        assert!(checked(&ROLE.replace("allow", "alow")).unwrap_err().contains("line 6"));
    }
}

//! Which database, which database user and which name are meant when the command line does not say.

use crate::cli::terminal::one_line;
use crate::web::people_api::MyDatabase;

/// In a list of a role: any but those denied.
const ANY: &str = "*";

/// Databases that a sentence names: with more it is no sentence any more, and `db ls` has them all.
const NAMED_MAX: usize = 5;

/// The database that `asked` names, or the only one.
pub fn database<'a>(program: &str, databases: &'a [MyDatabase], asked: Option<&str>) -> Result<&'a MyDatabase, String> {
    match (asked, databases) {
        (Some(name), all) => all
            .iter()
            .find(|database| database.name == name)
            .ok_or_else(|| not_found(program, all, name)),
        (None, [only]) => Ok(only),
        (None, []) => Err(NONE.to_owned()),
        (None, several) => Err(several_of(several.iter().map(|database| database.name.as_str()))),
    }
}

pub const NONE: &str = "there are no databases for you; ask a cluster administrator for a role that allows one";

fn not_found(program: &str, databases: &[MyDatabase], name: &str) -> String {
    let names: Vec<String> = databases.iter().map(|database| one_line(&database.name)).collect();
    let there = match names.get(..NAMED_MAX) {
        _ if names.is_empty() => NONE.to_owned(),
        Some(first) if names.len() > NAMED_MAX => {
            format!("you may use {} and {} more", first.join(", "), names.len() - NAMED_MAX)
        }
        _ => format!("you may use {}", names.join(", ")),
    };
    format!(
        "database \"{}\" not found, use '{program} db ls' to see registered databases; {there}",
        one_line(name)
    )
}

pub fn several_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(one_line).collect();
    format!(
        "multiple databases are available ({}), please specify one by name",
        names.join(", ")
    )
}

/// The two things that a database is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    AsUser,
    ByName,
}

impl Opened {
    const fn words(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::AsUser => ("database user", "database users", "--db-user", "db_users"),
            Self::ByName => ("database name", "database names", "--db-name", "db_names"),
        }
    }

    fn lists(self, database: &MyDatabase) -> (Vec<&str>, &[String]) {
        let (allowed, denied) = match self {
            Self::AsUser => (&database.allowed_users, &database.denied_users),
            Self::ByName => (&database.allowed_names, &database.denied_names),
        };
        let allowed = allowed.iter().filter(|name| !denied.contains(name)).map(String::as_str);
        (allowed.collect(), denied)
    }

    /// The one that is allowed, where it is exactly one and not any.
    pub fn only(self, database: &MyDatabase) -> Option<String> {
        match self.lists(database).0.as_slice() {
            [only] if *only != ANY => Some((*only).to_owned()),
            _ => None,
        }
    }

    /// As [`Self::only`], or why it has to be said.
    pub fn needed(self, database: &MyDatabase) -> Result<String, String> {
        if let Some(only) = self.only(database) {
            return Ok(only);
        }
        let (one, _, _, list) = self.words();
        let name = one_line(&database.name);
        if self.lists(database).0.is_empty() {
            return Err(format!(
                "you are not allowed access to any {one} for {name}, ask a cluster administrator to ensure your Postern user has \
                 appropriate {list} set"
            ));
        }
        Err(self.please(database))
    }

    /// Refuses what the roles do not allow, before anything is asked of auth with it: exactly as auth would, byte for byte.
    pub fn permitted(self, database: &MyDatabase, asked: &str) -> Result<(), String> {
        let (allowed, denied) = self.lists(database);
        let is_asked = |name: &str| name == ANY || name == asked;
        if allowed.into_iter().any(is_asked) && !denied.iter().any(|name| is_asked(name)) {
            return Ok(());
        }
        self.needed(database).map_or_else(Err, |_| Err(self.please(database)))
    }

    fn please(self, database: &MyDatabase) -> String {
        let (one, several, flag, _) = self.words();
        let name = one_line(&database.name);
        format!(
            "please provide the {one} using the {flag} flag, allowed {several} for {name}: {}",
            self.shown(database)
        )
    }

    /// `[* alice] except [postgres]`.
    pub fn shown(self, database: &MyDatabase) -> String {
        let (allowed, denied) = self.lists(database);
        let except = if denied.is_empty() {
            String::new()
        } else {
            format!(" except [{}]", denied.join(" "))
        };
        one_line(&format!("[{}]{except}", allowed.join(" ")))
    }
}

#[cfg(test)]
pub fn example(name: &str, users: &[&str], denied: &[&str], names: &[&str]) -> MyDatabase {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    MyDatabase {
        name: name.to_owned(),
        description: "Example".to_owned(),
        protocol: "postgres".to_owned(),
        labels: [("env".to_owned(), "dev".to_owned())].into(),
        uri: "db:5432".to_owned(),
        allowed_users: list(users),
        denied_users: list(denied),
        allowed_names: list(names),
        denied_names: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_taken_by_its_name_or_because_it_is_the_only_one() {
        let (a, b) = (example("a", &[], &[], &[]), example("b", &[], &[], &[]));
        let both = [a.clone(), b];
        assert_eq!(database("tsh", &both, Some("b")).unwrap().name, "b");
        assert_eq!(database("tsh", &[a], None).unwrap().name, "a");
        assert_eq!(
            database("tsh", &both, Some("x")).unwrap_err(),
            "database \"x\" not found, use 'tsh db ls' to see registered databases; you may use a, b"
        );
        assert_eq!(
            database("tsh", &both, None).unwrap_err(),
            "multiple databases are available (a, b), please specify one by name"
        );
        assert_eq!(
            database("tsh", &[], None).unwrap_err(),
            "there are no databases for you; ask a cluster administrator for a role that allows one"
        );
        let said = database("tsh", &[], Some("x")).unwrap_err();
        assert!(
            said.ends_with("; there are no databases for you; ask a cluster administrator for a role that allows one")
        );
        let many: Vec<MyDatabase> = (1..=7).map(|n| example(&format!("d{n}"), &[], &[], &[])).collect();
        let said = database("tsh", &many, Some("x")).unwrap_err();
        assert!(said.ends_with("; you may use d1, d2, d3, d4, d5 and 2 more"), "{said}");
    }

    #[test]
    fn a_user_need_not_be_said_when_exactly_one_that_is_not_any_is_allowed() {
        let user = |users: &[&str], denied: &[&str]| Opened::AsUser.needed(&example("x", users, denied, &[]));
        assert_eq!(user(&["reader"], &[]).as_deref(), Ok("reader"));
        assert_eq!(user(&["reader", "postgres"], &["postgres"]).as_deref(), Ok("reader"));
        assert_eq!(
            user(&["*", "alice"], &["postgres"]).unwrap_err(),
            "please provide the database user using the --db-user flag, allowed database users for x: [* alice] except [postgres]"
        );
        assert!(user(&["*"], &[]).unwrap_err().ends_with("for x: [*]"));
        assert_eq!(
            user(&["postgres"], &["postgres"]).unwrap_err(),
            "you are not allowed access to any database user for x, ask a cluster administrator to ensure your Postern user has \
             appropriate db_users set"
        );
        let name = Opened::ByName.needed(&example("x", &[], &[], &["a", "b"])).unwrap_err();
        assert_eq!(
            name,
            "please provide the database name using the --db-name flag, allowed database names for x: [a b]"
        );
    }

    #[test]
    fn what_the_roles_do_not_allow_is_refused_with_what_they_allow() {
        let asked = |users: &[&str], denied: &[&str], user: &str| {
            Opened::AsUser.permitted(&example("demo", users, denied, &[]), user)
        };
        assert_eq!(asked(&["app"], &[], "app"), Ok(()));
        assert_eq!(asked(&["*"], &["postgres"], "anybody"), Ok(()));
        assert_eq!(
            asked(&["app"], &[], "nobody").unwrap_err(),
            "please provide the database user using the --db-user flag, allowed database users for demo: [app]"
        );
        assert!(asked(&["*"], &["postgres"], "postgres").is_err());
        assert!(asked(&["app"], &["*"], "app").is_err());
        assert!(
            asked(&[], &[], "app")
                .unwrap_err()
                .starts_with("you are not allowed access")
        );
        assert!(asked(&["app"], &[], "App").is_err());
    }
}

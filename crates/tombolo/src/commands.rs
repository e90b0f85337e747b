//! The command line. Every command that prints for people prints JSON on demand, exits non-zero on failure, and says
//! what to do next.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tombolo_admin::{
    DecisionAnswer, PartnerAnswer, PendingAnswer, RegistrationsAnswer, ReloadAnswer, UserAnswer,
    client::{AskError, ask, order, segment},
};
use tombolo_config::{Accounts, Checked, Role, Settings, Severity, load, report};
use tombolo_interwork::{address::login_name, typed_address::typed_address};
use tombolo_net::span_text;

use crate::{
    book::take_out,
    run::{self, default_data_dir, settings_of, wall},
    status::{StatusOptions, session_line, status, stream_line},
    store_file,
};

/// Joins SIP/SIMPLE enterprises to XMPP domains.
#[derive(Debug, Parser)]
#[command(name = "tombolo", version, about)]
pub struct CommandLine {
    /// The data directory of the running process that is asked.
    ///
    /// Else the environment variable TOMBOLO_DATA_DIR, else `tombolo-data`.
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

/// What a process is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Edge and gateway in one process.
    AllInOne,
    /// The public side alone.
    Edge,
    /// The inside alone.
    Gateway,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server; without a file with safe defaults on loopback.
    Run {
        /// The settings file.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Instead of the file's role.
        #[arg(long)]
        role: Option<RoleName>,
        /// Begin with an empty store where the store file is missing: every subscription is forgotten.
        #[arg(long)]
        new_store: bool,
    },
    /// Check a settings file: exit code 0, or 1 with each error's place, reason and what is accepted.
    Check {
        /// The settings file.
        file: PathBuf,
    },
    /// How the running process is doing, and each partner in a line: those in trouble first.
    Status(StatusOptions),
    /// Partners of the running process.
    Partner {
        #[command(subcommand)]
        command: PartnerCommand,
    },
    /// What FROM may do toward TO, by which rule, and what is seen.
    Explain {
        /// Who acts: user@domain.
        from: String,
        /// Toward whom: user@domain.
        to: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Users of built-in homes.
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// The store file, while no process runs with it.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Play a partner and two phones against the running defaults.
    Demo {
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Read certificates, authorities, accounts and partners again, without a restart; exit code 1 when something could
    /// not be used and what was there stays.
    Reload {
        /// Take what looks like a mistake: a certificate that is out of date, for another domain or not for servers in the
        /// place of a good one, and an accounts file that lost its users.
        #[arg(long)]
        force: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End the running process in order.
    Shutdown,
}

#[derive(Debug, Subcommand)]
enum PartnerCommand {
    /// All partners.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// One partner.
    Show {
        /// Its domain.
        domain: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try a partner that cannot be reached, now.
    Retry {
        /// Its domain.
        domain: String,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Read every page and row: exit code 0, or 1 when a process could not be started with the file.
    Check {
        /// The file; by default state.redb in the data directory.
        file: Option<PathBuf>,
    },
    /// Put what can be read of a damaged file in its place; the file itself stays beside it.
    Salvage {
        /// The file; by default state.redb in the data directory.
        file: Option<PathBuf>,
    },
    /// Declare that a store which was begun anew or salvaged holds every grant that counts: contacts who have none in it
    /// are told `unsubscribed` again.
    Complete {
        /// The file; by default state.redb in the data directory.
        file: Option<PathBuf>,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user to a built-in home. The password is asked for at the terminal, without echo, or read from the standard
    /// input, unless it is given.
    Add {
        /// user@domain
        aor: String,
        /// The password; others can see it in the list of processes.
        #[arg(long)]
        password: Option<String>,
        /// How watchers are approved: ask, partner or all.
        #[arg(long, default_value = "ask")]
        approve: String,
    },
    /// Remove a user: phones are cut off, watchers and contacts are told.
    Remove {
        /// user@domain, or exactly what stands in the accounts file
        aor: String,
        /// Take it out of this accounts file, without a running process.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Give a user another password, which is asked for as with add.
    Passwd {
        /// user@domain
        aor: String,
        /// The password; others can see it in the list of processes.
        #[arg(long)]
        password: Option<String>,
    },
    /// All users of built-in homes.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The phones of a user: Contact, address and remaining time of each binding.
    Show {
        /// user@domain
        aor: String,
        /// Remove all bindings. A phone that is still there registers again when its time is over.
        #[arg(long)]
        clear: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Who waits for a user's decision.
    Pending {
        /// user@domain
        aor: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let a watcher see the user; without a contact, all who wait.
    Approve {
        /// user@domain
        aor: String,
        /// The watcher.
        contact: Option<String>,
    },
    /// Refuse a watcher, or take back what was granted; without a contact, all who wait.
    Deny {
        /// user@domain
        aor: String,
        /// The watcher.
        contact: Option<String>,
    },
}

impl CommandLine {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let is_named = self.data_dir.is_some();
        let data_dir = self.data_dir.unwrap_or_else(default_data_dir);
        let outcome = match self.command {
            Command::Run { config: Some(config), .. } if is_named => Err(format!(
                "--data-dir goes with the embedded defaults only: set data_dir in {}, or leave out --data-dir",
                config.display()
            )),
            Command::Run { config, role, new_store } => {
                let role = role.map(|role| match role {
                    RoleName::AllInOne => Role::AllInOne,
                    RoleName::Edge => Role::Edge,
                    RoleName::Gateway => Role::Gateway,
                });
                settings_of(config.as_deref(), role, &data_dir)
                    .and_then(|checked| run::run(&checked, config.map(|config| (config, role)), new_store))
            }
            Command::Check { file } => checked(&file).map(|settings| {
                say!(
                    "{}: good; role {}, {} local domains, {} partners",
                    file.display(),
                    settings.role.as_str(),
                    settings.domains.len(),
                    settings.partners.len()
                );
            }),
            Command::Store { command } => {
                // A panic of the engine is one more fault that is printed.
                std::panic::set_hook(Box::new(|_| {}));
                let file = |file: Option<PathBuf>| file.unwrap_or_else(|| data_dir.join("state.redb"));
                match command {
                    StoreCommand::Check { file: named } => store_file::check(&file(named)),
                    StoreCommand::Salvage { file: named } => store_file::salvage(&file(named)),
                    StoreCommand::Complete { file: named, yes } => {
                        let confirm = || if yes { Ok(true) } else { store_file::ask_for_yes() };
                        store_file::complete(&file(named), confirm)
                    }
                }
            }
            command => ask_running(command, &data_dir),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Whoever should read it may not, and the end must not wait for that.
                let print = std::thread::spawn(move || eprintln!("{}", error.trim_end()));
                for _ in 0..100 {
                    if print.is_finished() {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                ExitCode::FAILURE
            }
        }
    }
}

/// The settings of a file, with everything that was found in it told: what keeps `run` from starting, and what would not
/// work, are errors here; advice is only printed.
fn checked(file: &Path) -> Result<Settings, String> {
    let Checked { settings, findings } = load(file, None, wall()).map_err(|errors| report(&errors))?;
    if findings.iter().any(|finding| finding.severity > Severity::Advice) {
        return Err(report(&findings));
    }
    // `run` refuses an accounts file that cannot be read; one that is not there yet is empty.
    if let Some(accounts) = &settings.accounts {
        Accounts::load(&accounts.file).map_err(|errors| report(&errors))?;
    }
    if !findings.is_empty() {
        say!("{}", report(&findings).trim_end());
    }
    Ok(settings)
}

fn ask_running(command: Command, data_dir: &Path) -> Result<(), String> {
    if let Command::Demo { json } = command {
        // The simulated partner is made of actors, as the server is.
        return actix::System::new().block_on(crate::demo::demo(data_dir, json));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(asked(command, data_dir)).map_err(|error| error.to_string())
}

async fn asked(command: Command, data_dir: &Path) -> Result<(), AskError> {
    match command {
        Command::Status(options) => status(&options, data_dir).await?,
        Command::Partner { command: PartnerCommand::List { json } } => {
            let partners: Vec<PartnerAnswer> = ask(data_dir, "/api/v1/partners").await?;
            if json { print_json(&partners) } else { partners.iter().for_each(print_partner) }
        }
        Command::Partner { command: PartnerCommand::Show { domain, json } } => {
            let partner: PartnerAnswer =
                ask(data_dir, &format!("/api/v1/partners/{}", segment(&domain))).await?;
            if json { print_json(&partner) } else { print_partner(&partner) }
        }
        Command::Partner { command: PartnerCommand::Retry { domain } } => {
            let path = format!("/api/v1/partners/{}/retry", segment(&domain));
            let answer: Value = order(data_dir, &path, &json!({})).await?;
            say!("{} sessions are tried now; see: tombolo partner show {domain}", answer["sessions"]);
        }
        Command::Explain { from, to, json } => {
            let path = format!("/api/v1/explain?from={}&to={}", segment(&from), segment(&to));
            let answer: Value = ask(data_dir, &path).await?;
            if json { print_json(&answer) } else { print_explanation(&answer) }
        }
        Command::User { command } => ask_about_user(command, data_dir).await?,
        Command::Reload { force, json } => {
            let answer: ReloadAnswer = order(data_dir, "/api/v1/reload", &json!({ "force": force })).await?;
            return print_reload(&answer, json);
        }
        Command::Shutdown => {
            let _: Value = order(data_dir, "/api/v1/shutdown", &json!({})).await?;
            say!("ending");
        }
        Command::Run { .. } | Command::Check { .. } | Command::Store { .. } | Command::Demo { .. } => {}
    }
    Ok(())
}

async fn ask_about_user(command: UserCommand, data_dir: &Path) -> Result<(), AskError> {
    match command {
        UserCommand::Add { aor, password, approve } => {
            let password = password.map_or_else(|| read_password(&aor), Ok).map_err(AskError::Refused)?;
            let path = format!("/api/v1/users/{}/add", segment(&aor));
            let body = json!({ "password": password, "approve": approve });
            let user: UserAnswer = order(data_dir, &path, &body).await?;
            // Phones know the user as SIP does: in lower case, and without the escapes of XMPP.
            let aor = typed_address(&user.aor).ok();
            let login = aor.as_ref().map(login_name).unwrap_or_else(|| user.aor.as_str().into());
            say!("{} may register as {login}; watchers: {}", user.aor, user.approve);
        }
        UserCommand::Remove { aor, file: Some(file) } => {
            let left = take_out(&file, &aor).map_err(AskError::Refused)?;
            say!("{aor} is removed from {}; {} accounts are left", file.display(), left.len());
        }
        UserCommand::Remove { aor, file: None } => {
            let path = format!("/api/v1/users/{}/remove", segment(&aor));
            let answer: Value = order(data_dir, &path, &json!({})).await?;
            say!("{} is removed", answer["aor"].as_str().unwrap_or(&aor));
        }
        UserCommand::Passwd { aor, password } => {
            let password = password.map_or_else(|| read_password(&aor), Ok).map_err(AskError::Refused)?;
            let path = format!("/api/v1/users/{}/passwd", segment(&aor));
            let answer: Value = order(data_dir, &path, &json!({ "password": password })).await?;
            say!(
                "{} has another password; its phones need it from now on",
                answer["aor"].as_str().unwrap_or(&aor)
            );
        }
        UserCommand::List { json } => {
            let users: Vec<UserAnswer> = ask(data_dir, "/api/v1/users").await?;
            if json {
                print_json(&users);
            } else {
                users.iter().for_each(|user| say!("{:<40} approve = {}", user.aor, user.approve));
            }
        }
        UserCommand::Show { aor, clear, json } => {
            let path = format!("/api/v1/users/{}/bindings", segment(&aor));
            let removed: Option<Value> = match clear {
                true => Some(order(data_dir, &format!("{path}/clear"), &json!({})).await?),
                false => None,
            };
            let user: RegistrationsAnswer = ask(data_dir, &path).await?;
            if json {
                print_json(&user);
            } else {
                if let Some(removed) = removed {
                    say!("{} bindings removed", removed["removed"]);
                }
                print_registrations(&user);
            }
        }
        UserCommand::Pending { aor, json } => {
            let path = format!("/api/v1/users/{}", segment(&aor));
            let pending: PendingAnswer = ask(data_dir, &path).await?;
            if json {
                print_json(&pending);
            } else if pending.pending.is_empty() {
                say!("nobody waits for {}", pending.aor);
            } else {
                pending.pending.iter().for_each(|watcher| say!("{watcher}"));
                say!("Next: tombolo user approve {} CONTACT, or deny", pending.aor);
            }
        }
        UserCommand::Approve { aor, contact } => decide(data_dir, &aor, contact, "approve").await?,
        UserCommand::Deny { aor, contact } => decide(data_dir, &aor, contact, "deny").await?,
    }
    Ok(())
}

async fn decide(data_dir: &Path, aor: &str, contact: Option<String>, verb: &str) -> Result<(), AskError> {
    let path = format!("/api/v1/users/{}/{verb}", segment(aor));
    let decision: DecisionAnswer = order(data_dir, &path, &json!({ "contact": contact })).await?;
    let done = if verb == "approve" { "approved" } else { "denied" };
    decision.watchers.iter().for_each(|watcher| say!("{done}: {watcher}"));
    Ok(())
}

/// Asks twice at a terminal, without echo; reads one line where the standard input is none.
fn read_password(aor: &str) -> Result<String, String> {
    if std::io::stdin().is_terminal() {
        let ask = |prompt: String| rpassword::prompt_password(prompt).map_err(|error| error.to_string());
        let password = ask(format!("Password for {aor}: "))?;
        if password.is_empty() {
            return Err("no password was typed".to_owned());
        }
        if ask("Again: ".to_owned())? != password {
            return Err("the two passwords differ; nothing was changed".to_owned());
        }
        return Ok(password);
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| error.to_string())?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("no password: give it on the standard input, or with --password".to_owned());
    }
    Ok(password.to_owned())
}

fn print_json(value: &impl serde::Serialize) {
    say!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

fn print_registrations(user: &RegistrationsAnswer) {
    say!("{}: approve = {}, {} bindings", user.aor, user.approve, user.bindings.len());
    for binding in &user.bindings {
        let state = if binding.is_reachable { "reachable" } else { "connection lost" };
        say!("  {}", binding.contact);
        say!(
            "    {} by {}, {state}, until {} ({} left), instance {}",
            binding.remote,
            binding.transport,
            binding.expires,
            span_text(Duration::from_secs(binding.expires_seconds)),
            binding.instance
        );
    }
}

fn print_reload(answer: &ReloadAnswer, json: bool) -> Result<(), AskError> {
    if json {
        print_json(answer);
    } else {
        say!("in use now: {}", answer.taken.join(", "));
        if !answer.needs_restart.is_empty() {
            say!("differs, and needs a restart: {}", answer.needs_restart.join(", "));
        }
    }
    if answer.errors.is_empty() {
        return Ok(());
    }
    let errors = answer.errors.join("\n");
    Err(AskError::Refused(format!("{errors}\nWhat was there stays in use. Repair it, then: tombolo reload")))
}

fn print_partner(partner: &PartnerAnswer) {
    say!("{} ({}), proved by {}", partner.domain, partner.kind, partner.authenticate.join(" or "));
    if !partner.further_domains.is_empty() {
        say!("  also {}", partner.further_domains.join(", "));
    }
    if let Some(proxy) = &partner.proxy {
        say!("  dialled at {proxy}");
    }
    partner.sessions.iter().for_each(|session| say!("  {}", session_line(session)));
    partner.streams.iter().for_each(|stream| say!("  {}", stream_line(stream)));
}

fn print_explanation(answer: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    say!("{} → {}", text(&answer["from"]), text(&answer["to"]));
    for note in answer["notes"].as_array().into_iter().flatten() {
        say!("note: {}", text(note));
    }
    for capability in ["watch", "message"] {
        let explanation = &answer[capability];
        let outcome = text(&explanation["outcome"]);
        match explanation["standing"].as_str() {
            Some(standing) if outcome == "deny" => say!("{capability}: deny; suspended: {standing}"),
            Some(standing) => say!("{capability}: {standing}; a new request would get: {outcome}"),
            None => say!("{capability}: {outcome}"),
        }
        for step in explanation["steps"].as_array().into_iter().flatten() {
            let mark = if step["holds"] == true { '✓' } else { '✗' };
            let decided = if step["decided"] == true { "  ← decided" } else { "" };
            say!("  {mark} {}{decided}", text(&step["text"]));
        }
    }
    if !answer["subscription"].is_null() {
        say!("subscription {}, seen: {}", text(&answer["subscription"]), text(&answer["heard"]));
    }
}

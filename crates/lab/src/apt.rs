//! A private apt: the machine's apt-get with directories of its own, so that any user can fetch packages of any Debian
//! suite without touching the machine's configuration. apt checks the archive's signatures.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::bundle::Bundle;
use crate::cache::CacheError;
use crate::command::{CommandError, check, complaint, find, run, start_error};
use crate::fetch::FetchError;

/// Names the mirror, overriding the machine's own.
const MIRROR_VARIABLE: &str = "HYPOVISOR_DEBIAN_MIRROR";

/// The public keys of the Debian archive, where the package `debian-archive-keyring` puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package file that is to be downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackageFile {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) size_bytes: u64,
}

/// apt for one bundle.
pub(crate) struct Apt {
    bundle: Bundle,
    program: PathBuf,
    state: PathBuf,
    cache: PathBuf,
}

impl Apt {
    /// Sets it up, with its lists in `state` and what it downloads in `cache`.
    pub(crate) fn new(bundle: Bundle, state: PathBuf, cache: PathBuf) -> Result<Self, FetchError> {
        let program = find("apt-get", "apt")?;
        let mirror = mirror(&program)?;
        if !Path::new(KEYRING).is_file() {
            return Err(FetchError::NoKeyring(KEYRING));
        }
        let apt = Self { bundle, program, state, cache };
        apt.lay_out(&mirror)?;
        Ok(apt)
    }

    /// Brings the package lists up to date.
    pub(crate) fn update(&self) -> Result<(), FetchError> {
        let mut command = self.command();
        let output = command
            .args(["-o", "APT::Update::Error-Mode=any", "update"])
            .stdin(Stdio::null())
            .output()
            .map_err(start_error(&command))?;
        check(&command, &output).map_err(|error| network_error(error, &output))
    }

    /// What has to be downloaded for the bundle, with everything it depends on.
    pub(crate) fn plan(&self) -> Result<Vec<PackageFile>, FetchError> {
        let mut command = self.command();
        let listing = run(self.install(&mut command).arg("--print-uris"))?;
        let plan: Vec<_> = String::from_utf8_lossy(&listing).lines().filter_map(parse_uri_line).collect();
        if plan.is_empty() { Err(FetchError::NothingToFetch(self.bundle.name())) } else { Ok(plan) }
    }

    /// Downloads it all, calling back with the percentage done.
    pub(crate) fn download(&self, mut progress: impl FnMut(f64)) -> Result<(), FetchError> {
        let mut command = self.command();
        self.install(&mut command).args(["--download-only", "-o", "APT::Status-Fd=1"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(start_error(&command))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                parse_status_line(&line).into_iter().for_each(&mut progress);
            }
        }
        let mut stderr = Vec::new();
        if let Some(mut pipe) = child.stderr.take() {
            let _ = pipe.read_to_end(&mut stderr);
        }
        let status = child.wait().map_err(start_error(&command))?;
        let output = Output { status, stdout: Vec::new(), stderr };
        check(&command, &output).map_err(|error| network_error(error, &output))
    }

    /// The downloaded packages.
    pub(crate) fn downloaded(&self) -> Result<Vec<PathBuf>, CacheError> {
        let dir = self.cache.join("archives");
        let entries = fs::read_dir(&dir).map_err(CacheError::io(&dir))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        files.sort_unstable();
        Ok(files)
    }

    /// The directories and files that apt wants to find.
    fn lay_out(&self, mirror: &str) -> Result<(), CacheError> {
        for dir in [self.state.join("lists/partial"), self.cache.join("archives/partial")] {
            fs::create_dir_all(&dir).map_err(CacheError::io(&dir))?;
        }
        let suites = [Some(self.bundle.suite()), self.bundle.preferred_suite()];
        let sources: String = suites
            .iter()
            .flatten()
            .map(|suite| format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        for (name, text) in [("status", ""), ("sources.list", &sources)] {
            let path = self.state.join(name);
            fs::write(&path, text).map_err(CacheError::io(&path))?;
        }
        Ok(())
    }

    fn install<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.args(["install", "-y"]);
        if let Some(suite) = self.bundle.preferred_suite() {
            command.args(["-t", suite]);
        }
        command.args(self.bundle.packages())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        let state = |name: &str| self.state.join(name).display().to_string();
        let options = [
            ("Dir::Etc::sourcelist", state("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::Etc::preferences", "/dev/null".to_owned()),
            ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
            ("Dir::State", self.state.display().to_string()),
            ("Dir::State::lists", state("lists")),
            ("Dir::State::status", state("status")),
            ("Dir::Cache", self.cache.display().to_string()),
            ("APT::Architecture", "amd64".to_owned()),
            ("APT::Architectures", "amd64".to_owned()),
            ("APT::Default-Release", String::new()),
            ("APT::Install-Recommends", "false".to_owned()),
            // As root, apt would download as a user that cannot reach our directories.
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "2".to_owned()),
            ("Acquire::http::Timeout", "30".to_owned()),
            // The lab has its own lock; apt's would lie in directories of root.
            ("Debug::NoLocking", "1".to_owned()),
        ];
        for (name, value) in options {
            command.arg("-o").arg(format!("{name}={value}"));
        }
        command
    }
}

/// apt's complaint, when what failed is most likely the network or the mirror.
fn network_error(error: CommandError, output: &Output) -> FetchError {
    match error {
        CommandError::Failed { .. } => FetchError::Network { complaint: complaint(&output.stderr) },
        other => other.into(),
    }
}

/// The mirror to use: the one named by the variable, else the one that this machine's apt uses for Debian itself.
fn mirror(apt_get: &Path) -> Result<String, FetchError> {
    if let Some(mirror) = std::env::var(MIRROR_VARIABLE).ok().filter(|mirror| !mirror.is_empty()) {
        return Ok(mirror);
    }
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let listing =
        run(Command::new(apt_get).args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    choose_mirror(&String::from_utf8_lossy(&listing)).ok_or(FetchError::NoMirror)
}

/// The first repository that calls itself Debian; without package lists nothing does, then the first that looks so.
fn choose_mirror(listing: &str) -> Option<String> {
    let rows =
        || listing.lines().filter_map(|line| Some((line.rsplit_once('|')?.0, line.rsplit_once('|')?.1)));
    let named = rows().find(|(label, _)| *label == "Debian|Debian");
    let likely = || rows().find(|(_, uri)| uri.trim_end_matches('/').ends_with("/debian"));
    named.or_else(likely).map(|(_, uri)| uri.to_owned())
}

/// Reads `'URI' NAME_VERSION_ARCH.deb SIZE HASH`; other lines are apt's chatter.
fn parse_uri_line(line: &str) -> Option<PackageFile> {
    let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
    let (file, size) = (words.next()?, words.next()?);
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version) = (parts.next()?.to_owned(), parts.next()?.replace("%3a", ":"));
    Some(PackageFile { name, version, size_bytes: size.parse().ok()? })
}

/// Reads the percentage of `dlstatus:NUMBER:PERCENT:TEXT`.
fn parse_status_line(line: &str) -> Option<f64> {
    line.strip_prefix("dlstatus:")?.split(':').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debian_mirror_is_preferred_over_others() {
        let listing = "Docker|Docker CE|http://d/\nDebian|Debian-Security|http://m/debian-security/\n\
                       Debian|Debian|http://m/debian/\n";
        assert_eq!(choose_mirror(listing).as_deref(), Some("http://m/debian/"));
        let without_lists = "||http://m/debian-security/\n||http://m/debian/\n";
        assert_eq!(choose_mirror(without_lists).as_deref(), Some("http://m/debian/"));
        assert_eq!(choose_mirror(""), None);
    }

    #[test]
    fn apts_listings_are_read() {
        let line = "'http://m/x.deb' libaudit1_1%3a4.0.2-2+deb13u1_amd64.deb 56232 SHA256:ab";
        let expected = PackageFile {
            name: "libaudit1".to_owned(),
            version: "1:4.0.2-2+deb13u1".to_owned(),
            size_bytes: 56232,
        };
        assert_eq!(parse_uri_line(line), Some(expected));
        assert_eq!(parse_uri_line("Reading package lists..."), None);
        assert_eq!(parse_status_line("dlstatus:1:24.5:Retrieving file 3 of 9"), Some(24.5));
        assert_eq!(parse_status_line("pmstatus:x:1:y"), None);
    }
}

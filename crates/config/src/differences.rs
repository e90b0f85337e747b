//! What a reload would change, and what of it only a restart brings in.

use crate::settings::Settings;

/// One part of the settings that differs between two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The part: a table of the file, or a key at its top.
    pub part: &'static str,
    /// A running process cannot take it in.
    pub needs_restart: bool,
}

impl Settings {
    /// What differs in `new`, in the order of the file. Partners, domains, limits, trust and the log change in a running
    /// process; the role, what is listened on, and where state lies do not.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let listeners = |settings: &Self| {
            let xmpp =
                settings.xmpp.as_ref().map(|xmpp| (xmpp.listen.clone(), xmpp.direct_tls_listen.clone()));
            (xmpp, settings.sip.as_ref().map(|sip| sip.listen.clone()))
        };
        let listeners_differ = listeners(self) != listeners(new);
        let rows = [
            ("role", self.role != new.role, true),
            ("data_dir", self.data_dir != new.data_dir, true),
            ("domain", self.domains != new.domains, false),
            ("xmpp", self.xmpp != new.xmpp, listeners_differ),
            ("sip", self.sip != new.sip, listeners_differ),
            ("partner", self.partners != new.partners, false),
            ("dns", self.dns != new.dns, true),
            ("link", self.link != new.link, true),
            ("store", self.store != new.store, true),
            ("accounts", self.accounts != new.accounts, false),
            ("admin", self.admin != new.admin, true),
            ("log", self.log != new.log, false),
        ];
        rows.into_iter()
            .filter(|(_, differs, _)| *differs)
            .map(|(part, _, needs_restart)| Difference { part, needs_restart })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::embedded_defaults;

    #[test]
    fn a_reload_is_told_apart_from_a_restart() {
        let old = embedded_defaults(Path::new("d"));
        assert_eq!(old.differences(&old), []);
        let mut new = old.clone();
        new.partners.clear();
        if let Some(xmpp) = &mut new.xmpp {
            xmpp.limits.depth += 1;
        }
        let live = |part| Difference { part, needs_restart: false };
        assert_eq!(old.differences(&new), [live("xmpp"), live("partner")]);
        if let Some(xmpp) = &mut new.xmpp {
            xmpp.listen.clear();
        }
        assert_eq!(old.differences(&new)[0], Difference { part: "xmpp", needs_restart: true });
    }
}

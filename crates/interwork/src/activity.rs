//! What an activity (RFC 4480 §3.2) means for how available somebody is (STOX-P-59).
//!
//! The default is that who does something is away: only what is known to leave somebody available does.

use tombolo_presence::Availability;
use tombolo_sip::pidf::Activity;

/// How available somebody is who does this.
pub fn availability_of(activity: &Activity) -> Availability {
    match activity {
        Activity::Busy
        | Activity::OnThePhone
        | Activity::Meeting
        | Activity::Presentation
        | Activity::Appointment
        | Activity::Performance
        | Activity::Steering
        | Activity::Worship => Availability::DoNotDisturb,
        Activity::Vacation
        | Activity::PermanentAbsence
        | Activity::Holiday
        | Activity::Sleeping
        | Activity::Travel => Availability::ExtendedAway,
        Activity::Working | Activity::LookingForWork => Availability::Available,
        Activity::Away
        | Activity::Breakfast
        | Activity::Dinner
        | Activity::InTransit
        | Activity::Lunch
        | Activity::Meal
        | Activity::Playing
        | Activity::Shopping
        | Activity::Spectator
        | Activity::Tv
        | Activity::Unknown => Availability::Away,
        Activity::Other(words) => availability_of_words(words),
    }
}

/// For what servers and devices write that is not in RFC 4480.
fn availability_of_words(words: &str) -> Availability {
    let is = |known: &[&str]| {
        known.iter().any(|known| {
            let matches = |(one, other): (char, char)| match one {
                '-' => matches!(other, '-' | ' ' | '_'),
                _ => one == other.to_ascii_lowercase(),
            };
            known.len() == words.len() && known.chars().zip(words.chars()).all(matches)
        })
    };
    if is(&["available", "online", "open", "active", "ready", "chat", "free-for-chat"]) {
        Availability::Available
    } else if is(&[
        "do-not-disturb",
        "dnd",
        "in-a-meeting",
        "in-a-conference",
        "in-a-call",
        "in-use",
        "inuse",
        "in-presentation",
        "presenting",
        "urgent-interruptions-only",
        "on-hold",
        "ringing",
    ]) {
        Availability::DoNotDisturb
    } else if is(&["out-of-office", "off-work", "extended-away", "xa", "not-available"]) {
        Availability::ExtendedAway
    } else {
        Availability::Away
    }
}

/// Of several activities the one counts that leaves least room: the higher rank.
pub fn rank(availability: &Availability) -> u8 {
    match availability {
        Availability::Chat | Availability::Available => 0,
        Availability::Away => 1,
        Availability::ExtendedAway => 2,
        Availability::DoNotDisturb => 3,
        Availability::Unavailable => 4,
    }
}

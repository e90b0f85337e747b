//! The activities that RPID names (RFC 4480 §3.2). Names go in and out; what they mean for availability is not here.

use super::xml::trim;

/// What somebody does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the word of RFC 4480 §3.2 that explains it")]
pub enum Activity {
    Appointment,
    Away,
    Breakfast,
    Busy,
    Dinner,
    Holiday,
    InTransit,
    LookingForWork,
    Lunch,
    Meal,
    Meeting,
    OnThePhone,
    Performance,
    PermanentAbsence,
    Playing,
    Presentation,
    Shopping,
    Sleeping,
    Spectator,
    Steering,
    Travel,
    Tv,
    Unknown,
    Vacation,
    Working,
    Worship,
    /// Something else, in words, or by a name that RPID does not define.
    Other(String),
}

static NAMES: [(&str, Activity); 26] = [
    ("appointment", Activity::Appointment),
    ("away", Activity::Away),
    ("breakfast", Activity::Breakfast),
    ("busy", Activity::Busy),
    ("dinner", Activity::Dinner),
    ("holiday", Activity::Holiday),
    ("in-transit", Activity::InTransit),
    ("looking-for-work", Activity::LookingForWork),
    ("lunch", Activity::Lunch),
    ("meal", Activity::Meal),
    ("meeting", Activity::Meeting),
    ("on-the-phone", Activity::OnThePhone),
    ("performance", Activity::Performance),
    ("permanent-absence", Activity::PermanentAbsence),
    ("playing", Activity::Playing),
    ("presentation", Activity::Presentation),
    ("shopping", Activity::Shopping),
    ("sleeping", Activity::Sleeping),
    ("spectator", Activity::Spectator),
    ("steering", Activity::Steering),
    ("travel", Activity::Travel),
    ("tv", Activity::Tv),
    ("unknown", Activity::Unknown),
    ("vacation", Activity::Vacation),
    ("working", Activity::Working),
    ("worship", Activity::Worship),
];

impl Activity {
    /// The activity of an empty element; `None` for a name that RPID does not define, and for `other`.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, activity)| activity.clone())
    }

    /// The activity that drafts and old devices write as words: `busy`, `On the phone`, `ep:away`. `None` for no words.
    pub fn from_words(words: &str) -> Option<Self> {
        let words = trim(words);
        // Somebody took the name of an element for text, with its prefix.
        let words = trim(words.rsplit_once(':').map_or(words, |(_, name)| name));
        if words.is_empty() {
            return None;
        }
        let name: String = words
            .chars()
            .map(
                |character| if matches!(character, ' ' | '_') { '-' } else { character.to_ascii_lowercase() },
            )
            .collect();
        Some(Self::from_name(&name).unwrap_or_else(|| Self::Other(words.to_owned())))
    }

    /// The name of its element.
    pub fn name(&self) -> &'static str {
        NAMES.iter().find(|(_, activity)| activity == self).map_or("other", |(name, _)| name)
    }
}

//! What is measured where: kinds, places, devices, points.
//!
//! A [`Point`] is one measured thing at one place, not a device; a device carries one or more points. Everything that
//! many points share lies behind an `Arc`, so that a hundred thousand devices stay below a kilobyte each.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

/// What a point's alarms are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hazard {
    Gas,
    Fire,
    Power,
    Flood,
    /// Slopes and walls that move.
    Ground,
    /// People who need help at home or in a lift; the environment and the comfort of residents: temperature, noise.
    Care,
    /// The health of the device itself: battery, radio, cover.
    Device,
}

impl Hazard {
    pub const ALL: [Self; 7] =
        [Self::Gas, Self::Fire, Self::Power, Self::Flood, Self::Ground, Self::Care, Self::Device];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gas => "gas",
            Self::Fire => "fire",
            Self::Power => "power",
            Self::Flood => "flood",
            Self::Ground => "ground",
            Self::Care => "care",
            Self::Device => "device",
        }
    }
}

/// Whether values of a kind are numbers or flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Number,
    Flag,
    Text,
}

/// One row of [`KINDS`].
#[derive(Debug)]
pub struct KindInfo {
    /// `hazard.quantity`, the word of configuration and rules.
    pub name: &'static str,
    pub hazard: Hazard,
    pub form: Form,
    /// The unit that rules and screens see; empty for flags.
    pub unit: &'static str,
    pub zh: &'static str,
    pub en: &'static str,
}

/// What is measured, one of [`KINDS`].
#[derive(Clone, Copy)]
pub struct Kind(&'static KindInfo);

impl Kind {
    /// The first of the table, for readers that go on after a fault.
    pub(crate) const FIRST: Self = Self(&KINDS[0]);

    /// Looks a kind up by its name, such as `gas.lel`.
    pub fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|info| info.name == name).map(Self)
    }

    pub fn info(self) -> &'static KindInfo {
        self.0
    }

    pub fn as_str(self) -> &'static str {
        self.0.name
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Kind {}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

const fn kind(
    name: &'static str,
    hazard: Hazard,
    form: Form,
    unit: &'static str,
    zh: &'static str,
    en: &'static str,
) -> KindInfo {
    KindInfo { name, hazard, form, unit, zh, en }
}

/// Every kind that anmin knows. A new one is one line here.
pub static KINDS: &[KindInfo] = &[
    kind("gas.lel", Hazard::Gas, Form::Number, "%LEL", "可燃气体浓度", "combustible gas"),
    kind("gas.co", Hazard::Gas, Form::Number, "ppm", "一氧化碳浓度", "carbon monoxide"),
    kind("gas.detected", Hazard::Gas, Form::Flag, "", "可燃气体报警", "gas detected"),
    kind("fire.smoke", Hazard::Fire, Form::Flag, "", "烟雾报警", "smoke"),
    kind("fire.smoke_density", Hazard::Fire, Form::Number, "dB/m", "烟雾浓度", "smoke density"),
    kind("fire.temperature", Hazard::Fire, Form::Number, "degC", "感温探测温度", "heat detector temperature"),
    kind("fire.alarm", Hazard::Fire, Form::Flag, "", "火灾报警", "fire alarm of a detector or panel"),
    kind("fire.call_point", Hazard::Fire, Form::Flag, "", "手动报警按钮", "manual call point"),
    kind("power.residual_current", Hazard::Power, Form::Number, "mA", "剩余电流", "residual current"),
    kind("power.cable_temperature", Hazard::Power, Form::Number, "degC", "线缆温度", "cable temperature"),
    kind("power.voltage", Hazard::Power, Form::Number, "V", "电压", "voltage"),
    kind("power.current", Hazard::Power, Form::Number, "A", "电流", "current"),
    kind("power.active_power", Hazard::Power, Form::Number, "W", "有功功率", "active power"),
    kind("power.apparent_power", Hazard::Power, Form::Number, "VA", "视在功率", "apparent power"),
    kind("power.reactive_power", Hazard::Power, Form::Number, "var", "无功功率", "reactive power"),
    kind("power.factor", Hazard::Power, Form::Number, "", "功率因数", "power factor"),
    kind("power.harmonics", Hazard::Power, Form::Number, "%", "谐波总畸变率", "total harmonic distortion"),
    kind("power.insulation", Hazard::Power, Form::Number, "MOhm", "绝缘电阻", "insulation resistance"),
    kind("power.energy", Hazard::Power, Form::Number, "kWh", "电能", "energy"),
    kind("power.frequency", Hazard::Power, Form::Number, "Hz", "频率", "frequency"),
    kind("power.arc", Hazard::Power, Form::Number, "", "每秒电弧半波数", "arcing half-cycles within a second"),
    kind("power.phase_lost", Hazard::Power, Form::Flag, "", "缺相", "phase lost"),
    kind("power.supply", Hazard::Power, Form::Flag, "", "市电供电", "mains supply present"),
    kind("flood.level", Hazard::Flood, Form::Number, "cm", "积水深度", "water level"),
    kind("flood.leak", Hazard::Flood, Form::Flag, "", "漏水", "water leak"),
    kind("flood.rain", Hazard::Flood, Form::Number, "mm", "雨量增量", "rain since the last reading"),
    kind("flood.pump_running", Hazard::Flood, Form::Flag, "", "排水泵运行", "drainage pump running"),
    kind("flood.pump_fault", Hazard::Flood, Form::Flag, "", "排水泵故障", "drainage pump fault"),
    kind("ground.tilt", Hazard::Ground, Form::Number, "deg", "倾斜角", "tilt"),
    kind("ground.crack", Hazard::Ground, Form::Number, "mm", "裂缝宽度", "crack width"),
    kind("care.sos", Hazard::Care, Form::Flag, "", "紧急呼叫", "SOS button"),
    kind("care.fall", Hazard::Care, Form::Flag, "", "跌倒", "fall"),
    kind("care.motion", Hazard::Care, Form::Flag, "", "人员活动", "motion"),
    kind("care.home", Hazard::Care, Form::Flag, "", "有人在家", "somebody is at home"),
    kind("care.lift_trapped", Hazard::Care, Form::Flag, "", "电梯困人", "people trapped in a lift"),
    kind("care.lift_fault", Hazard::Care, Form::Flag, "", "电梯故障", "lift fault"),
    kind("env.noise", Hazard::Care, Form::Number, "dB", "噪声", "noise"),
    kind("env.temperature", Hazard::Care, Form::Number, "degC", "环境温度", "temperature"),
    kind("env.humidity", Hazard::Care, Form::Number, "%RH", "环境湿度", "humidity"),
    kind("device.state", Hazard::Device, Form::Number, "", "设备状态码", "device state code"),
    kind("device.limit", Hazard::Device, Form::Number, "", "设备内设限值", "limit set in the device"),
    kind("device.input", Hazard::Device, Form::Flag, "", "开关量输入", "contact input closed"),
    kind("device.output", Hazard::Device, Form::Flag, "", "继电器输出", "output switched on"),
    kind("device.fault", Hazard::Device, Form::Flag, "", "设备故障", "device fault"),
    kind("device.battery", Hazard::Device, Form::Number, "%", "电池电量", "battery"),
    kind("device.battery_low", Hazard::Device, Form::Flag, "", "电池电量低", "battery low"),
    kind("device.tamper", Hazard::Device, Form::Flag, "", "防拆", "tamper"),
    kind("device.link_quality", Hazard::Device, Form::Number, "lqi", "信号质量", "link quality"),
    kind("device.signal", Hazard::Device, Form::Number, "dBm", "信号强度", "signal strength"),
    kind("device.text", Hazard::Device, Form::Text, "", "设备文本", "device text"),
];

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A device's id: up to 128 characters, none of `+ # /`, no control characters; Chinese is welcome.
    DeviceId
}
text_id! {
    /// `device/name`, such as `b3-2-gas/lel`: unique in the site, stable over restarts, the key of history.
    PointId
}

impl DeviceId {
    /// Checks a device id that came from outside: topic, file or command line. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().count() > 128 {
            return Err(format!("a device id has 1 to 128 characters, this has {}", text.chars().count()));
        }
        match text.chars().find(|c| matches!(c, '+' | '#' | '/' | '\\') || c.is_control()) {
            Some(bad) => Err(format!("a device id cannot hold {bad:?}")),
            None if text == "." || text == ".." => Err("a device id cannot be a path".to_owned()),
            None => Ok(Self::new(text)),
        }
    }
}

/// Where something is: from the grid cell of the community down to the room. Shared by all points there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The id of the `[[place]]` in the configuration; empty when none was given.
    pub area: String,
    /// Grid cell of the community's grid management (网格).
    pub grid: String,
    pub building: String,
    pub unit: String,
    pub floor: String,
    pub room: String,
    /// WGS-84 degrees: latitude, longitude.
    pub position: Option<(f64, f64)>,
    /// Corners of its outline in the same degrees, the first again at the end; empty where nobody has drawn one.
    pub polygon: Vec<(f64, f64)>,
}

/// What a house, a unit or a floor may have behind its number.
pub const NUMBERED: [&str; 7] = ["号楼", "栋", "幢", "座", "单元", "层", "楼"];

/// Rooms and parts of a house that nearly every community has, so that nobody need write them twice.
pub const ROOMS_IN_ENGLISH: [(&str, &str); 41] = [
    ("院内", "courtyard"),
    ("厨房", "kitchen"),
    ("客厅", "living room"),
    ("卧室", "bedroom"),
    ("阳台", "balcony"),
    ("卫生间", "bathroom"),
    ("楼道", "landing"),
    ("走廊", "corridor"),
    ("公共走廊", "corridor"),
    ("楼梯间", "stairwell"),
    ("大厅", "hall"),
    ("门厅", "entrance hall"),
    ("前室", "lobby"),
    ("电梯厅", "lift lobby"),
    ("电梯机房", "lift machine room"),
    ("屋顶", "roof"),
    ("楼顶", "roof"),
    ("天台", "roof"),
    ("地下室", "basement"),
    ("地下车库", "underground garage"),
    ("车库", "garage"),
    ("车库入口", "garage entrance"),
    ("电动车棚", "e-bike shed"),
    ("充电区", "charging area"),
    ("配电间", "switch room"),
    ("配电室", "switch room"),
    ("强电井", "electrical riser"),
    ("弱电井", "low-voltage riser"),
    ("管道井", "service riser"),
    ("水泵房", "pump room"),
    ("泵房", "pump room"),
    ("锅炉房", "boiler room"),
    ("燃气调压间", "gas regulator room"),
    ("发电机房", "generator room"),
    ("消防控制室", "fire control room"),
    ("消控室", "fire control room"),
    ("值班室", "duty room"),
    ("设备间", "plant room"),
    ("底商", "ground-floor shop"),
    ("商铺", "shop"),
    ("门卫室", "gatehouse"),
];

/// A number, as houses, floors and flats have them: `3`, `B1`, `12-2`.
fn is_number(part: &str) -> bool {
    part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

impl Place {
    /// `3号楼2单元5层501`; 未指明地点 when nothing is known.
    pub fn zh(&self) -> String {
        let after = ["号楼", "单元", "层", ""];
        self.words(
            "未指明地点",
            "",
            |n, part| if is_number(part) { format!("{part}{}", after[n]) } else { part.to_owned() },
        )
    }

    /// `Building 3, Unit 2, Floor 5, 501`; `unknown place` when nothing is known. What a site writes in Chinese is in English where
    /// it is a number (`3号楼`, `2单元`) or a usual room.
    pub fn en(&self) -> String {
        let before = ["Building ", "Unit ", "Floor ", ""];
        self.words("unknown place", ", ", |n, part| {
            let number = NUMBERED.iter().find_map(|after| part.strip_suffix(after));
            match number.filter(|_| n < 3).or(Some(part)).filter(|part| is_number(part)) {
                Some(number) => format!("{}{number}", before[n]),
                None => ROOMS_IN_ENGLISH.iter().find(|(zh, _)| *zh == part).map_or(part, |(_, en)| en).to_owned(),
            }
        })
    }

    /// The same but for who lives where in it: for those who may know of an event and not of a home.
    pub fn to_building(&self) -> Self {
        let Self { area, grid, building, .. } = self.clone();
        Self { area, grid, building, ..Self::default() }
    }

    fn words(&self, nowhere: &str, between: &str, said: impl Fn(usize, &str) -> String) -> String {
        let parts: Vec<String> = [&self.building, &self.unit, &self.floor, &self.room]
            .into_iter()
            .enumerate()
            .filter(|(_, part)| !part.is_empty())
            .map(|(n, part)| said(n, part))
            .collect();
        if !parts.is_empty() {
            parts.join(between)
        } else if self.area.is_empty() {
            nowhere.to_owned()
        } else {
            self.area.clone()
        }
    }

    pub fn same_room(&self, other: &Self) -> bool {
        self.same_floor(other) && self.room == other.room && !self.room.is_empty()
    }

    pub fn same_floor(&self, other: &Self) -> bool {
        self.same_unit(other) && self.floor == other.floor && !self.floor.is_empty()
    }

    /// The floor as a number, so that neighbours differ by one: `5`, `5F`, `5层` are 5; `B1` and `-1` lie below the first
    /// and are 0. `None` when the floor's name is no number.
    pub fn storey(&self) -> Option<i32> {
        let name = self.floor.trim().trim_end_matches(['层', '楼', 'F', 'f']);
        let (below, name) = match name.strip_prefix(['B', 'b', '-']).or_else(|| name.strip_prefix("地下")) {
            Some(name) => (true, name),
            None => (false, name.strip_prefix(['F', 'f']).unwrap_or(name)),
        };
        let number = name.parse::<u16>().ok().map(i32::from).filter(|number| *number > 0)?;
        Some(if below { 1 - number } else { number })
    }

    pub fn same_unit(&self, other: &Self) -> bool {
        self.same_building(other) && self.unit == other.unit
    }

    pub fn same_building(&self, other: &Self) -> bool {
        self.area == other.area
            && self.building == other.building
            && !(self.building.is_empty() && self.area.is_empty())
    }
}

/// What all points of one kind and model share.
#[derive(Clone, Debug, PartialEq)]
pub struct PointSpec {
    /// The last part of the [`PointId`], such as `lel`.
    pub name: String,
    pub kind: Kind,
    /// Plausible range in the kind's unit; outside it a reading is [`crate::reading::Fault::OutOfRange`].
    pub range: Option<(f64, f64)>,
    /// Largest believable step between two readings, in the kind's unit; beyond it [`crate::reading::Doubt::Jump`].
    pub max_jump: Option<f64>,
    /// A value that has not moved for so long is [`crate::reading::Doubt::Stuck`].
    pub stuck_after: Option<Duration>,
    /// Without a reading for so long the point is [`crate::reading::Fault::Silent`].
    pub silent_after: Option<Duration>,
    /// Devices that speak to this point's alarms are polled and served first.
    pub alarm_point: bool,
}

impl PointSpec {
    /// A spec with no limits, for tests and for kinds that need none.
    pub fn plain(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            range: None,
            max_jump: None,
            stuck_after: None,
            silent_after: None,
            alarm_point: false,
        }
    }
}

/// Index of a device in [`Points`]; dense, only good for one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIx(pub u32);

/// Index of a point in [`Points`]; dense, only good for one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointIx(pub u32);

/// What people call a thing, in both languages of the duty desk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub zh: Arc<str>,
    pub en: Arc<str>,
}

impl Name {
    /// One that is the same in both.
    pub fn both(name: impl Into<Arc<str>>) -> Self {
        let zh = name.into();
        Self { en: Arc::clone(&zh), zh }
    }

    /// `None` where neither is said; where only one is, it is said in both.
    pub fn of(zh: Option<String>, en: Option<String>) -> Option<Self> {
        match (zh, en) {
            (Some(zh), Some(en)) if zh != en => Some(Self { zh: zh.into(), en: en.into() }),
            (one, other) => one.or(other).map(Self::both),
        }
    }
}

/// A thing on the wall.
#[derive(Clone, Debug)]
pub struct Device {
    pub id: DeviceId,
    /// What people call it, where somebody said.
    label: Option<Box<Name>>,
    /// The profile it follows, such as `yaoan-ya-k300`.
    pub profile: Arc<str>,
    pub place: Arc<Place>,
    /// First of its points, which stand next to each other.
    first: PointIx,
    count: u32,
}

impl Device {
    /// What people call it; the id when nobody said.
    pub fn label(&self) -> Name {
        self.label.as_deref().cloned().unwrap_or_else(|| Name::both(Arc::clone(&self.id.0)))
    }

    pub fn points(&self) -> impl Iterator<Item = PointIx> + use<> {
        (self.first.0..self.first.0 + self.count).map(PointIx)
    }
}

/// One measured thing at one place.
#[derive(Clone, Debug)]
pub struct Point {
    pub id: PointId,
    pub device: DeviceIx,
    pub spec: Arc<PointSpec>,
}

/// What became of the devices of another set, see [`Points::take_in`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenIn {
    /// Where each point of the other set is, by its index there.
    pub numbers: Vec<Option<PointIx>>,
    /// Devices that were here already and are otherwise; nothing of theirs has changed.
    pub otherwise: Vec<DeviceId>,
}

/// Why a device cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The site has a device of this id already.
    #[error("device {0} is there already")]
    Duplicate(DeviceId),
    /// Two points of one device have one name.
    #[error("device {device} has two points named `{name}`")]
    DuplicatePoint { device: DeviceId, name: String },
}

/// All devices and points of the site. Grows, never shrinks while the daemon runs.
#[derive(Debug, Default)]
pub struct Points {
    devices: Vec<Device>,
    points: Vec<Point>,
    /// Where each device stands, by the hash of its id, which is not kept: five bytes a device.
    by_id: HashTable<DeviceIx>,
    hasher: RandomState,
}

impl Points {
    /// Adds a device with its points; nothing is added on error.
    pub fn add(
        &mut self,
        id: DeviceId,
        label: Option<&Name>,
        profile: &Arc<str>,
        place: &Arc<Place>,
        specs: &[Arc<PointSpec>],
    ) -> Result<DeviceIx, AddError> {
        if self.find_device(id.as_str()).is_some() {
            return Err(AddError::Duplicate(id));
        }
        for (n, spec) in specs.iter().enumerate() {
            if specs[..n].iter().any(|other| other.name == spec.name) {
                return Err(AddError::DuplicatePoint { device: id, name: spec.name.clone() });
            }
        }
        let device = DeviceIx(self.devices.len() as u32);
        let first = PointIx(self.points.len() as u32);
        for spec in specs {
            let point = PointId::new(format!("{id}/{}", spec.name));
            self.points.push(Point { id: point, device, spec: Arc::clone(spec) });
        }
        let label = label.filter(|name| [&name.zh, &name.en].iter().any(|said| ***said != *id.0));
        let label = label.cloned().map(Box::new);
        let hash = self.hasher.hash_one(id.as_str());
        self.devices.push(Device {
            id,
            label,
            profile: Arc::clone(profile),
            place: Arc::clone(place),
            first,
            count: specs.len() as u32,
        });
        let Self { devices, by_id, hasher, .. } = self;
        by_id.insert_unique(hash, device, |ix| hasher.hash_one(devices[ix.0 as usize].id.as_str()));
        Ok(device)
    }

    /// Gives back the room that growing took. For when all are there.
    pub fn shrink(&mut self) {
        self.devices.shrink_to_fit();
        self.points.shrink_to_fit();
    }

    /// Adds the devices of `other` that are not here yet.
    pub fn take_in(&mut self, other: Self) -> TakenIn {
        let mut taken = TakenIn::default();
        for device in &other.devices {
            let theirs: Vec<&Point> = device.points().map(|ix| other.point(ix)).collect();
            let known = match self.find_device(device.id.as_str()) {
                Some(known) => {
                    let own = self.device(known);
                    let specs = own.points().map(|ix| &self.point(ix).spec);
                    let same = (&own.label, &own.profile, &own.place)
                        == (&device.label, &device.profile, &device.place)
                        && specs.eq(theirs.iter().map(|point| &point.spec));
                    if !same {
                        taken.otherwise.push(device.id.clone());
                    }
                    known
                }
                None => {
                    let specs: Vec<Arc<PointSpec>> = theirs.iter().map(|point| Arc::clone(&point.spec)).collect();
                    self.add(device.id.clone(), Some(&device.label()), &device.profile, &device.place, &specs)
                        // Invariant: the other set holds no device twice, and none with two points of one name.
                        .expect("it was in a set like this one")
                }
            };
            taken.numbers.extend(theirs.iter().map(|point| self.point_of(known, &point.spec.name)));
        }
        taken
    }

    pub fn len(&self) -> usize {
        self.points.len()
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Panics on an index that did not come from this set, which is a defect of the caller.
    pub fn point(&self, ix: PointIx) -> &Point {
        &self.points[ix.0 as usize]
    }

    /// Panics on an index that did not come from this set, which is a defect of the caller.
    pub fn device(&self, ix: DeviceIx) -> &Device {
        &self.devices[ix.0 as usize]
    }

    pub fn device_of(&self, ix: PointIx) -> &Device {
        self.device(self.point(ix).device)
    }

    pub fn find(&self, id: &str) -> Option<PointIx> {
        // By way of the device: a second table would cost every point 33 bytes.
        let (device, name) = id.split_once('/')?;
        self.point_of(self.find_device(device)?, name)
    }

    pub fn find_device(&self, id: &str) -> Option<DeviceIx> {
        self.by_id.find(self.hasher.hash_one(id), |ix| self.device(*ix).id.as_str() == id).copied()
    }

    /// The point of a device by its name, such as `lel`.
    pub fn point_of(&self, device: DeviceIx, name: &str) -> Option<PointIx> {
        self.device(device).points().find(|ix| self.point(*ix).spec.name == name)
    }

    pub fn devices(&self) -> impl ExactSizeIterator<Item = (DeviceIx, &Device)> {
        self.devices.iter().enumerate().map(|(n, device)| (DeviceIx(n as u32), device))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PointIx, &Point)> {
        self.points.iter().enumerate().map(|(n, point)| (PointIx(n as u32), point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_said_in_both_languages_whichever_the_site_was_written_in() {
        let cases = [
            (["3", "2", "5", "501"], "3号楼2单元5层501", "Building 3, Unit 2, Floor 5, 501"),
            (["3号楼", "2单元", "5层", "楼道"], "3号楼2单元5层楼道", "Building 3, Unit 2, Floor 5, landing"),
            (["A座", "", "B1", "配电间"], "A座B1层配电间", "Building A, Floor B1, switch room"),
            (["物业楼", "", "一楼", "档案室"], "物业楼一楼档案室", "物业楼, 一楼, 档案室"),
            (["", "", "", "车库入口"], "车库入口", "garage entrance"),
            (["", "", "", "5楼"], "5楼", "5楼"),
            (["", "", "", ""], "未指明地点", "unknown place"),
        ];
        for ([building, unit, floor, room], zh, en) in cases {
            let [building, unit, floor, room] = [building, unit, floor, room].map(str::to_owned);
            let place = Place { building, unit, floor, room, ..Place::default() };
            assert_eq!((place.zh(), place.en()), (zh.to_owned(), en.to_owned()));
        }
    }

    #[test]
    fn a_device_is_called_what_people_said_and_by_its_id_where_nobody_did() {
        let own = |zh: &str, en: &str| Name { zh: zh.into(), en: en.into() };
        let cases = [
            (None, own("g1", "g1")),
            (Some(Name::both("g1")), own("g1", "g1")),
            (Some(own("燃气探测器", "gas detector")), own("燃气探测器", "gas detector")),
            (Some(own("g1", "gas detector")), own("g1", "gas detector")),
            (Some(own("燃气探测器", "g1")), own("燃气探测器", "g1")),
        ];
        for (said, label) in cases {
            let mut points = Points::default();
            let device = points.add(DeviceId::new("g1"), said.as_ref(), &"p".into(), &Arc::default(), &[]);
            points.shrink();
            assert_eq!(points.device(device.expect("it is the first")).label(), label);
        }
    }

    #[test]
    fn each_usual_room_is_named_once() {
        let names: std::collections::HashSet<&str> = ROOMS_IN_ENGLISH.iter().map(|(zh, _)| *zh).collect();
        assert_eq!(names.len(), ROOMS_IN_ENGLISH.len());
    }
}

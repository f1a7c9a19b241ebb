/** What every entry of the package shows. */

export type { Bundle, TrustOptions } from "./bundle";
export type { Entry } from "./catalog";
export type { Context } from "./context";
export { checkConformance } from "./conformance";
export {
  BundleDamaged,
  BundleError,
  BundleUnsupported,
  BundleUntrusted,
  ProfileError,
  UsageError,
  XrecError,
} from "./errors";
export { assign, type Arm } from "./experiment";
export type { LoadOptions } from "./load";
export type { Manifest, RankerRecord } from "./manifest";
export { fromRecord, MemoryProfile, toRecord, withConsent, withEvent } from "./profile";
export type { Consent, Event, EventRecord, Kept, ProfileStore, Purpose } from "./profile";
export type { Deed, Exported, RecommendOptions, Where } from "./recommender";
export type { Reason, Recommendation } from "./results";
export { VERSION } from "./version";

// What the judging page loads after its first comparison is shown.
import { makeArrange } from "./arrange.js";
import { showAside } from "./aside.js";
import { remindOfBreaks } from "./breaks.js";
import { makeCompare } from "./compare.js";
import { renew, watchLease } from "./lease.js";
import { fillIn, learn } from "./repeated_parts.js";

export { fillIn, learn, makeArrange, makeCompare, renew, watchLease, remindOfBreaks, showAside };

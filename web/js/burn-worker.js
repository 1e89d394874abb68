// The worker of `anygpu/burn`.

import * as bindings from "./anygpu_burn.js";
import { serve } from "./serve.js";

serve(bindings);

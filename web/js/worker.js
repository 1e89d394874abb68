// The worker of `anygpu`.

import * as bindings from "./anygpu_web.js";
import { serve } from "./serve.js";

serve(bindings);

/** @param {{ name: string, message: string }} error */
export const failure = ({ name, message }) => Object.assign(new Error(message), { name });
export const cancelled = () => failure({ name: "Cancelled", message: "cancelled" });

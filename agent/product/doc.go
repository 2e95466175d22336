// Package product keeps the machine's products: installs them, remembers what the operator granted, starts them contained,
// watches over them and takes them down again. It reads no frame and merges no answer: a Host speaks with the product.
//
// Invariant: one product's failure, of whatever kind, changes nothing for another product and nothing for the agent, and
// after a product is stopped no process, mount, control group or descriptor of it is left.
package product
